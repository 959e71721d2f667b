//! What region sync costs, and how fast it is. See `--help`.
//!
//! | where | what |
//! |---|---|
//! | [`plan`] | what is measured, and how often |
//! | [`places`] | which processors they run on |
//! | [`region`] | servers that are regions of each other |
//! | [`load`] | takes at a steady pace |
//! | [`throughput`] | CL.TAKE with and without sync |
//! | [`many`] | what each further region costs |
//! | [`convergence`] | how long until the other region knows of a take |
//! | [`idle`] | what goes over the wire when nothing is taken |
//! | [`weight`] | what a bucket weighs that regions share |

mod convergence;
mod idle;
mod load;
mod many;
mod places;
mod plan;
mod region;
mod throughput;
mod weight;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::part::Part;
use crate::report::say;
pub use plan::Plan;

/// Runs some parts and prints what they find.
pub fn run(client: &Client, plan: &Plan, parts: &[Part]) -> Result<()> {
    let module = plan.builds.first().map(|build| build.module.as_path());
    let module = module.ok_or_else(|| Error::new("no build of the module"))?;
    for part in parts {
        let text = match part {
            Part::Throughput => throughput::measure(client, plan)?,
            Part::Regions => many::measure(plan)?,
            Part::Convergence => convergence::measure(module)?,
            Part::Idle => idle::measure(module)?,
            Part::Memory => weight::measure(module)?,
        };
        say(&format!("\n{text}"))?;
    }
    Ok(())
}
