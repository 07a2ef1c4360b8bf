//! What there is.

use datad_sim::{invariants, oracle::probes, script::scenarios};

pub(crate) fn list() -> u8 {
    println!("Scenarios (--scenario NAME):");
    for (name, _) in scenarios::ALL {
        let about = scenarios::load(name).map(|script| script.about).unwrap_or_default();
        println!("  {name:<22} {about}");
    }
    println!("\nProperties:");
    for (number, property) in invariants::ALL {
        println!("  {number:>2} {property}");
    }
    println!("\nWhat has to happen sometimes:");
    for (name, meaning) in probes::ALL {
        println!("  {name:<22} {meaning}");
    }
    0
}
