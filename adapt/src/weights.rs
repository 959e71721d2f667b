//! Weights as a text file that says where they come from.
//!
//! ```text
//! claw-adapt weights 3
//! loop off-path
//! parameters 5e-1 3.5e-1 1.3e0 3e-2 6e-2 1.4e0 5e-1 - -
//! shape 12 32 32 2
//! seed 1
//! command claw-train train off-path 1
//! hash 3f0c1e5a9b7d2468
//! -4.5151196e-2
//! ...
//! ```
//!
//! The parameters are those of the loop that the network was trained to correct, in the order that
//! [`Parameters`] has them, those of the cap at the end; `- -` is no cap.
//!
//! The hash is FNV-1a, 64 bits, of the whole text without its own line, as [`Weights::write`] writes it. It
//! finds what was damaged or edited by accident; it is no signature.

use crate::drain::{Cap, Parameters};
use crate::network::{HIDDEN, INPUTS, Network, OUTPUTS, WEIGHTS};
use std::fmt::{self, Write};

const VERSION: &str = "claw-adapt weights 3";
const NO_CAP: [&str; 2] = ["-", "-"];

/// The inner loop that weights were trained to correct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// With a cap on what is in flight.
    OnPath,
    /// With a rate only.
    OffPath,
}

impl Loop {
    /// The parameters that ship for the loop.
    #[must_use]
    pub fn parameters(self) -> Parameters {
        match self {
            Self::OnPath => Parameters::ON_PATH,
            Self::OffPath => Parameters::OFF_PATH,
        }
    }

    /// Its name in files and commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OnPath => "on-path",
            Self::OffPath => "off-path",
        }
    }

    /// The loop of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::OnPath, Self::OffPath].into_iter().find(|it| it.name() == name)
    }
}

/// A trained network and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// What it corrects.
    pub corrects: Loop,
    /// That loop's parameters when it was trained: a network corrects no other.
    pub parameters: Parameters,
    /// The seed that it was trained from.
    pub seed: u64,
    /// The command that remakes the file.
    pub command: String,
    /// Its weights, all of them finite.
    pub network: Network,
}

/// Why a text is no weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightsError {
    /// The first line is another.
    Version,
    /// A line of the head is missing or malformed: which.
    Head(&'static str),
    /// The network has another shape: which.
    Shape(String),
    /// There are so many weights.
    Count(usize),
    /// This weight, counted from 1, is no finite number.
    Number(usize),
    /// The hash of the content, which is not the one in the file.
    Hash(u64),
}

impl Weights {
    /// The weights that this crate comes with, for a loop.
    ///
    /// # Errors
    /// When the file was damaged before this was built.
    pub fn shipped(corrects: Loop) -> Result<Self, WeightsError> {
        Self::read(match corrects {
            Loop::OnPath => include_str!("../weights/on-path-1.txt"),
            Loop::OffPath => include_str!("../weights/off-path-1.txt"),
        })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// When it is not whole, or of another version or shape.
    pub fn read(text: &str) -> Result<Self, WeightsError> {
        let mut lines = text.lines();
        if lines.next() != Some(VERSION) {
            return Err(WeightsError::Version);
        }
        let mut head = |name: &'static str| {
            lines
                .next()
                .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .ok_or(WeightsError::Head(name))
        };
        let corrects = Loop::of_name(head("loop")?).ok_or(WeightsError::Head("loop"))?;
        let parameters =
            parameters(head("parameters")?, corrects).ok_or(WeightsError::Head("parameters"))?;
        let found = head("shape")?;
        if found != shape() {
            return Err(WeightsError::Shape(found.to_owned()));
        }
        let seed = head("seed")?.parse().map_err(|_| WeightsError::Head("seed"))?;
        let command = head("command")?.to_owned();
        let hash =
            u64::from_str_radix(head("hash")?, 16).map_err(|_| WeightsError::Head("hash"))?;
        let numbers = lines
            .zip(1..)
            .map(|(line, nth)| {
                let number = line.parse().ok().filter(|x: &f32| x.is_finite());
                number.ok_or(WeightsError::Number(nth))
            })
            .collect::<Result<Vec<f32>, _>>()?;
        let count = numbers.len();
        let numbers: Box<[f32; WEIGHTS]> =
            numbers.into_boxed_slice().try_into().map_err(|_| WeightsError::Count(count))?;
        let network = Network::new(numbers);
        let weights = Self { corrects, parameters, seed, command, network };
        // Of what was understood, written again: a text that only spells a number in another way is no other.
        if weights.hash() == hash { Ok(weights) } else { Err(WeightsError::Hash(weights.hash())) }
    }

    /// The text of a file, which [`Self::read`] reads.
    #[must_use]
    pub fn write(&self) -> String {
        let (head, numbers) = self.parts();
        format!("{head}hash {:016x}\n{numbers}", self.hash())
    }

    /// Names the weights: in metrics, and in the log of what they decided.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let (head, numbers) = self.parts();
        let bytes = head.bytes().chain(numbers.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// What is before and behind the line of the hash.
    fn parts(&self) -> (String, String) {
        let Parameters { gain, target, stretch, growth, burst_s, memory_s, slack, cap } =
            self.parameters;
        let cap =
            cap.map_or(NO_CAP.join(" "), |Cap { target, probe }| format!("{target:e} {probe:e}"));
        let head = format!(
            "{VERSION}\nloop {}\nparameters {gain:e} {target:e} {stretch:e} {growth:e} {burst_s:e} {memory_s:e} {slack:e} \
             {cap}\nshape {}\nseed {}\ncommand {}\n",
            self.corrects.name(),
            shape(),
            self.seed,
            self.command
        );
        let numbers = self.network.weights().iter().fold(String::new(), |mut text, weight| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{weight:e}");
            text
        });
        (head, numbers)
    }
}

/// Of a line of the head: positive numbers, those of a cap where the loop has one.
fn parameters(line: &str, corrects: Loop) -> Option<Parameters> {
    let number = |text: &str| text.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
    let numbers =
        |words: &[&str]| words.iter().map(|word| number(word)).collect::<Option<Vec<f64>>>();
    let words: Vec<&str> = line.split(' ').collect();
    let (loops, cap) = words.split_at_checked(7)?;
    let [gain, target, stretch, growth, burst_s, memory_s, slack] =
        numbers(loops)?.try_into().ok()?;
    let cap = match corrects {
        Loop::OnPath => {
            let [target, probe] = numbers(cap)?.try_into().ok()?;
            Some(Cap { target, probe })
        }
        Loop::OffPath if cap == NO_CAP => None,
        Loop::OffPath => return None,
    };
    Some(Parameters { gain, target, stretch, growth, burst_s, memory_s, slack, cap })
}

fn shape() -> String {
    format!("{INPUTS} {HIDDEN} {HIDDEN} {OUTPUTS}")
}

impl fmt::Display for WeightsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => write!(f, "the first line must be '{VERSION}'"),
            Self::Head(name) => write!(f, "the line '{name} ..' is missing or malformed"),
            Self::Shape(found) => write!(f, "the shape must be '{}', not '{found}'", shape()),
            Self::Count(found) => write!(f, "there must be {WEIGHTS} weights, not {found}"),
            Self::Number(nth) => write!(f, "weight {nth} is not a finite number"),
            Self::Hash(found) => write!(f, "the content has the hash {found:016x}: it was changed"),
        }
    }
}

impl std::error::Error for WeightsError {}
