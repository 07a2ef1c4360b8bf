//! Randomness and clocks of the operating system, per thread: a simulated thread draws from its seed.
//!
//! Libraries below a node ask the system themselves: TLS for its key exchange, hash maps for their keys, gossip for whom
//! to talk to. Three C functions are therefore defined here, in front of the C library's own: `getrandom`, `syscall`
//! (some libraries make the raw call, which the C library exports under this name) and `clock_gettime`. On a thread
//! that called [`enter`], the first two answer from a generator and the third says a fixed time; tokio's paused clock
//! counts from there. On every other thread they do what they always do.
//!
//! Only on Linux for x86-64. Elsewhere nothing is replaced, and runs of one seed differ.
#![allow(
    unsafe_code,
    reason = "replacing functions of the C library cannot be done otherwise; nothing else is in here"
)]

use std::cell::Cell;

thread_local! {
    /// State of the generator; without a destructor, so that it can be used at any moment of a thread's life.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What a simulated thread's clocks say, in seconds: some time in 2026 as wall clock.
pub const FIXED_CLOCK_S: i64 = 1_790_000_000;

/// From now on this thread draws from `seed`, and time stands still for it.
pub fn enter(seed: u64) {
    STATE.set(Some(seed ^ 0x6a09_e667_f3bc_c908));
}

/// Whether randomness can be replaced on this machine.
#[must_use]
pub const fn is_supported() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64"))
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod interpose {
    use std::{
        arch::asm,
        ffi::{c_int, c_long, c_uint, c_void},
    };

    use super::{FIXED_CLOCK_S, STATE};

    /// Fills `length` bytes from this thread's generator (splitmix64, Steele et al., 2014); `false` if it has none.
    ///
    /// # Safety
    /// `buffer` has room for `length` bytes.
    unsafe fn fill(buffer: *mut u8, length: usize) -> bool {
        let Some(mut state) = STATE.get() else { return false };
        for offset in 0..length {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            // SAFETY: offset < length, and the caller vouches for the room.
            unsafe { buffer.add(offset).write((word >> 32) as u8) };
        }
        STATE.set(Some(state));
        true
    }

    /// The system call itself, as the kernel defines it: the result, or minus the error.
    ///
    /// # Safety
    /// As the system call.
    unsafe fn raw(number: c_long, arguments: [c_long; 6]) -> c_long {
        let [first, second, third, fourth, fifth, sixth] = arguments;
        let result;
        // SAFETY: the registers are those of the kernel's calling convention, and the two that it overwrites are named.
        unsafe {
            asm!("syscall", inlateout("rax") number => result, in("rdi") first, in("rsi") second, in("rdx") third,
                in("r10") fourth, in("r8") fifth, in("r9") sixth, lateout("rcx") _, lateout("r11") _,
                options(nostack));
        }
        result
    }

    fn checked(result: c_long) -> c_long {
        if (-4095..0).contains(&result) {
            // SAFETY: the address of this thread's errno is always valid.
            unsafe { *libc::__errno_location() = -result as c_int };
            return -1;
        }
        result
    }

    /// `getrandom(2)`.
    ///
    /// # Safety
    /// As the C function: `buffer` has room for `length` bytes.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
        // SAFETY: passed on from the caller.
        unsafe {
            if fill(buffer.cast(), length) {
                return length as isize;
            }
            let arguments = [buffer as c_long, length as c_long, c_long::from(flags), 0, 0, 0];
            checked(raw(libc::SYS_getrandom, arguments)) as isize
        }
    }

    /// `syscall(2)`. The C function takes as many arguments as the call has; in this calling convention the others are
    /// whatever the registers and the caller's frame hold, and the kernel ignores them.
    ///
    /// # Safety
    /// As the C function.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn syscall(
        number: c_long,
        first: c_long,
        second: c_long,
        third: c_long,
        fourth: c_long,
        fifth: c_long,
        sixth: c_long,
    ) -> c_long {
        // SAFETY: passed on from the caller.
        unsafe {
            if number == libc::SYS_getrandom && fill(first as *mut u8, second as usize) {
                return second;
            }
            checked(raw(number, [first, second, third, fourth, fifth, sixth]))
        }
    }

    /// `clock_gettime(2)`.
    ///
    /// # Safety
    /// As the C function: `time` is valid.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
        // SAFETY: passed on from the caller.
        unsafe {
            if STATE.get().is_some() {
                time.write(libc::timespec { tv_sec: FIXED_CLOCK_S, tv_nsec: 0 });
                return 0;
            }
            checked(raw(libc::SYS_clock_gettime, [c_long::from(clock), time as c_long, 0, 0, 0, 0])) as c_int
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::hash_map::RandomState,
        hash::BuildHasher,
        thread,
        time::{Instant, SystemTime},
    };

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "to see that the clocks stand still")]
    fn a_thread_that_entered_draws_from_its_seed_and_time_stands_still() {
        if !is_supported() {
            return;
        }
        let draw = |seed| {
            thread::spawn(move || {
                enter(seed);
                let before = (Instant::now(), SystemTime::now());
                thread::yield_now();
                assert_eq!(before, (Instant::now(), SystemTime::now()));
                (RandomState::new().hash_one(1), rand::random::<u64>())
            })
            .join()
            .unwrap()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
