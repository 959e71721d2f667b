//! Numbers of MessagePack: doubles and floats are read exactly, by their bits.

use crate::any::cases;
use claw_core::codec::number::{amount, signed, whole};
use claw_core::decimal::DecimalError::{self, NotANumber, TooLarge};
use claw_core::limits::{MAX_DEBT, MAX_MICRO_TOKENS};
use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;
use rmpv::Value;

fn q(integer: impl Into<BigInt>) -> BigRational {
    BigRational::from_integer(integer.into())
}

/// What a number is, exactly. Written without a look at the reader.
fn exactly(value: &Value) -> Option<BigRational> {
    match value {
        Value::F64(double) => BigRational::from_float(*double),
        Value::F32(float) => BigRational::from_float(*float),
        value => value.as_u64().map(q).or(value.as_i64().map(q)),
    }
}

fn agrees(value: &Value) -> Result<(), TestCaseError> {
    let exact = exactly(value);
    // To the nearest, and from halfway on away from 0.
    let expected = match exact.clone().map(|tokens| (tokens * q(1_000_000)).round()) {
        None => Err(NotANumber),
        Some(micros) if micros > q(MAX_MICRO_TOKENS) || micros < q(-MAX_DEBT) => Err(TooLarge),
        Some(micros) => Ok(micros),
    };
    prop_assert_eq!(amount(value).map(q), expected, "{}", value);
    let integer = exact.filter(BigRational::is_integer);
    let expected = match integer.clone() {
        None => Err(NotANumber),
        // What is less than the least has a magnitude that does not fit, either.
        Some(whole) if whole > q(i64::MAX) || whole < q(-i64::MAX) => {
            prop_assume!(whole != q(i64::MIN));
            Err(TooLarge)
        }
        Some(whole) => Ok(whole),
    };
    prop_assert_eq!(signed(value).map(q), expected, "{}", value);
    let expected = match integer.filter(|whole| *whole >= q(0)) {
        None => Err(NotANumber),
        Some(whole) if whole > q(u64::MAX) => Err(TooLarge),
        Some(whole) => Ok(whole),
    };
    prop_assert_eq!(whole(value).map(q), expected, "{}", value);
    Ok(())
}

proptest! {
    #![proptest_config(cases(5_000))]

    #[test]
    fn any_bits(double in any::<u64>(), float in any::<u32>()) {
        agrees(&Value::F64(f64::from_bits(double)))?;
        agrees(&Value::F32(f32::from_bits(float)))?;
    }

    /// Where tokens are: 2^-30 to 2^70.
    #[test]
    fn near_amounts(double in any::<u64>(), exponent in 993_u64..=1_093, float in any::<u32>()) {
        let double = double & ((1 << 52) - 1) | exponent << 52;
        agrees(&Value::F64(f64::from_bits(double)))?;
        let exponent = u32::try_from(exponent + 127 - 1_023).unwrap();
        agrees(&Value::F32(f32::from_bits(float & ((1 << 23) - 1) | exponent << 23)))?;
    }

    /// What a function is given and returns, up to where docs/writing-a-merge.md says.
    #[test]
    fn doubles_have_room_for_six_decimals(micros in -8_589_934_592_000_000..=8_589_934_592_000_000_i64) {
        #[allow(clippy::cast_precision_loss)]
        let double = micros as f64 / 1e6;
        prop_assert_eq!(amount(&double.into()), Ok(micros));
    }

    #[test]
    fn doubles_have_room_for_halves(halves in 0..=2_000_000_000_000_i64) {
        #[allow(clippy::cast_precision_loss)]
        let double = halves as f64 / 2.0;
        prop_assert_eq!(amount(&double.into()), Ok(halves * 500_000));
    }

    #[test]
    fn whole_and_half_numbers(number in any::<u64>(), shift in 0_u32..64, halves in 0_u64..64) {
        let number = number >> shift;
        agrees(&Value::from(number))?;
        agrees(&Value::from(number.cast_signed()))?;
        #[allow(clippy::cast_precision_loss)]
        agrees(&Value::F64(number as f64 / (1_u64 << halves) as f64))?;
    }
}

#[test]
fn numbers_of_tokens() {
    let table: &[(Value, Result<i64, DecimalError>)] = &[
        (7.into(), Ok(7_000_000)),
        (7.5.into(), Ok(7_500_000)),
        (Value::F32(7.5), Ok(7_500_000)),
        (0.1.into(), Ok(100_000)),
        ((0.1 + 0.2).into(), Ok(300_000)),
        (999_999_999_999.5.into(), Ok(999_999_999_999_500_000)),
        // Where six decimals no longer fit.
        (8_589_934_592.000_001.into(), Ok(8_589_934_592_000_002)),
        (1e12.into(), Ok(1_000_000_000_000_000_000)),
        // Halfway between two millionths, exactly: 1/128 is 0.0078125.
        (0.0078125.into(), Ok(7_813)),
        (0.0.into(), Ok(0)),
        ((-0.0).into(), Ok(0)),
        (5e-324.into(), Ok(0)),
        (4e-7.into(), Ok(0)),
        (6e-7.into(), Ok(1)),
        // 2^53 + 2, as an integer and as a double.
        (9_007_199_254_740_994_u64.into(), Err(TooLarge)),
        (9_007_199_254_740_994.0.into(), Err(TooLarge)),
        (1_000_000_000_001_u64.into(), Err(TooLarge)),
        (u64::MAX.into(), Err(TooLarge)),
        (1e300.into(), Err(TooLarge)),
        (f64::MAX.into(), Err(TooLarge)),
        (Value::F32(f32::MAX), Err(TooLarge)),
        (f64::INFINITY.into(), Err(NotANumber)),
        (f64::NAN.into(), Err(NotANumber)),
        (Value::F32(f32::NAN), Err(NotANumber)),
        ((-5e-324).into(), Ok(0)),
        ((-1).into(), Ok(-1_000_000)),
        ((-0.5).into(), Ok(-500_000)),
        ((-0.0078125).into(), Ok(-7_813)),
        ((-9e12).into(), Ok(-9_000_000_000_000_000_000)),
        ((-9_000_000_000_001_i64).into(), Err(TooLarge)),
        (i64::MIN.into(), Err(TooLarge)),
        ("7".into(), Err(NotANumber)),
        (Value::Nil, Err(NotANumber)),
        (true.into(), Err(NotANumber)),
    ];
    for (value, micros) in table {
        assert_eq!(amount(value), *micros, "{value}");
    }
}
