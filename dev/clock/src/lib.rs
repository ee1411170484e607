//! A wall clock under the fault suite's control, for one process: preloaded (`LD_PRELOAD`) into it, this library stands
//! between the process and the system's clock and adds a shift that the suite changes while the process runs.
//!
//! The shift is read from a file, shared memory between the two, that the variable `CLAIMSTREAM_CLOCK_FILE` names: the shift in milliseconds, then a count of the answers that were shifted, both in the machine's byte order.
//! Only the wall clock is shifted. The monotonic one, on which timers rest, doesn't jump on a real machine either.
//!
//! What waits until a time of the wall clock (librdkafka's threads do) sees a jump much as it would see a real one: the
//! wait ends when the clock jumps forward, and lasts up to two seconds longer when it jumps back.

// A library that takes the place of C functions can't be had without it.
#![allow(unsafe_code)]

use libc::{
    CLOCK_REALTIME, CLOCK_REALTIME_COARSE, c_char, c_int, c_void, clockid_t, time_t, timespec, timeval,
};
use std::{
    ptr,
    sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering},
};

/// Names the file with the shift.
const VARIABLE: &std::ffi::CStr = c"CLAIMSTREAM_CLOCK_FILE";
/// The file's length.
const FILE_BYTES: usize = size_of::<Shared>();
const NANOS_PER_MILLI: i64 = 1_000_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// A wait looks at the shift again after this long …
const SLICE_NANOS: i64 = 50 * NANOS_PER_MILLI;
/// … and after so many looks it returns as if woken, which callers must reckon with anyway: between two slices nobody
/// waits, and a signal of that moment would be lost for as long as the clock was set back.
const MAX_SLICES: u32 = 40;
/// What `cnd_timedwait` answers when time is up (`thrd_timedout` of glibc).
const THRD_TIMEDOUT: c_int = 4;

/// The file, mapped.
#[repr(C)]
struct Shared {
    shift_ms: AtomicI64,
    answers: AtomicU64,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());

/// Runs when the library is loaded, before the program's own code.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = map;

/// Without the variable, or without the file, the clock is the system's.
extern "C" fn map() {
    // SAFETY: plain C calls with valid arguments; nothing else runs yet. The mapping lives as long as the process.
    unsafe {
        let path = libc::getenv(VARIABLE.as_ptr());
        if path.is_null() {
            return;
        }
        let file = libc::open(path, libc::O_RDWR | libc::O_CLOEXEC);
        if file < 0 {
            return;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(ptr::null_mut(), FILE_BYTES, protection, libc::MAP_SHARED, file, 0);
        libc::close(file);
        if at != libc::MAP_FAILED {
            SHARED.store(at.cast(), Ordering::Release);
        }
    }
}

/// What is added to the wall clock, in nanoseconds.
fn shift_nanos() -> i64 {
    // SAFETY: null, or a mapping of the right length that is never taken away.
    let Some(shared) = (unsafe { SHARED.load(Ordering::Acquire).as_ref() }) else { return 0 };
    let shift = shared.shift_ms.load(Ordering::Relaxed);
    if shift != 0 {
        shared.answers.fetch_add(1, Ordering::Relaxed);
    }
    shift.saturating_mul(NANOS_PER_MILLI)
}

fn nanos(at: &timespec) -> i64 {
    at.tv_sec.saturating_mul(NANOS_PER_SECOND).saturating_add(at.tv_nsec)
}

fn at_nanos(nanos: i64) -> timespec {
    timespec { tv_sec: nanos.div_euclid(NANOS_PER_SECOND), tv_nsec: nanos.rem_euclid(NANOS_PER_SECOND) }
}

/// The system's clock, asked without a function that stands in this library.
fn true_time(clock: clockid_t, at: &mut timespec) -> c_int {
    // SAFETY: the system call writes to a valid place.
    let status = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, ptr::from_mut(at)) };
    if status == 0 { 0 } else { -1 }
}

fn true_wall_nanos() -> i64 {
    let mut now = at_nanos(0);
    true_time(CLOCK_REALTIME, &mut now);
    nanos(&now)
}

fn shifted_wall_nanos() -> i64 {
    true_wall_nanos().saturating_add(shift_nanos())
}

/// The C function, shifted.
///
/// # Safety
/// `at` is null or points to a place for the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, at: *mut timespec) -> c_int {
    let mut answer = at_nanos(0);
    let status = true_time(clock, &mut answer);
    if status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        answer = at_nanos(nanos(&answer).saturating_add(shift_nanos()));
    }
    // SAFETY: as the caller promises.
    if let Some(at) = unsafe { at.as_mut() } {
        *at = answer;
    }
    status
}

/// The C function, shifted; time zones are long obsolete in it.
///
/// # Safety
/// `at` is null or points to a place for the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(at: *mut timeval, _zone: *mut c_void) -> c_int {
    let now = at_nanos(shifted_wall_nanos());
    // SAFETY: as the caller promises.
    if let Some(at) = unsafe { at.as_mut() } {
        *at = timeval { tv_sec: now.tv_sec, tv_usec: now.tv_nsec / 1_000 };
    }
    0
}

/// The C function, shifted.
///
/// # Safety
/// `at` is null or points to a place for the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(at: *mut time_t) -> time_t {
    let now = at_nanos(shifted_wall_nanos()).tv_sec;
    // SAFETY: as the caller promises.
    if let Some(at) = unsafe { at.as_mut() } {
        *at = now;
    }
    now
}

/// The function of the same name behind this library, kept once found.
struct Next {
    name: &'static std::ffi::CStr,
    found: AtomicPtr<c_void>,
}

type TimedWait = unsafe extern "C" fn(*mut c_void, *mut c_void, *const timespec) -> c_int;

impl Next {
    const fn new(name: &'static std::ffi::CStr) -> Self {
        Self { name, found: AtomicPtr::new(ptr::null_mut()) }
    }

    fn get(&self) -> Option<TimedWait> {
        let mut found = self.found.load(Ordering::Acquire);
        if found.is_null() {
            let name: *const c_char = self.name.as_ptr();
            // SAFETY: a valid name.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, name) };
            self.found.store(found, Ordering::Release);
        }
        if found.is_null() {
            return None;
        }
        // SAFETY: both functions that are asked for have this shape.
        Some(unsafe { std::mem::transmute::<*mut c_void, TimedWait>(found) })
    }
}

/// Waits until the shifted clock says `until`, in slices, so that a jump meanwhile is noticed.
///
/// # Safety
/// The arguments are what the C function wants.
unsafe fn wait(
    next: &Next,
    condition: *mut c_void,
    mutex: *mut c_void,
    until: *const timespec,
    over: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    let (Some(real), Some(until)) = (next.get(), unsafe { until.as_ref() }) else { return libc::EINVAL };
    let until = nanos(until);
    for _ in 0..MAX_SLICES {
        let left = until.saturating_sub(shifted_wall_nanos());
        let slice = at_nanos(true_wall_nanos().saturating_add(left.min(SLICE_NANOS)));
        // SAFETY: as the caller promises; the deadline lives through the call.
        let status = unsafe { real(condition, mutex, &raw const slice) };
        if status != over || shifted_wall_nanos() >= until {
            return status;
        }
    }
    0
}

/// The C function, by the shifted clock. For conditions that wait by the wall clock, as those of this product's
/// libraries do.
///
/// # Safety
/// As that of the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_timedwait(
    condition: *mut c_void,
    mutex: *mut c_void,
    until: *const timespec,
) -> c_int {
    static NEXT: Next = Next::new(c"pthread_cond_timedwait");
    // SAFETY: as the caller promises.
    unsafe { wait(&NEXT, condition, mutex, until, libc::ETIMEDOUT) }
}

/// The C function, by the shifted clock.
///
/// # Safety
/// As that of the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cnd_timedwait(
    condition: *mut c_void,
    mutex: *mut c_void,
    until: *const timespec,
) -> c_int {
    static NEXT: Next = Next::new(c"cnd_timedwait");
    // SAFETY: as the caller promises.
    unsafe { wait(&NEXT, condition, mutex, until, THRD_TIMEDOUT) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant, SystemTime};

    /// The functions of this library take the C library's place in the test program as well.
    static HERE: Shared = Shared { shift_ms: AtomicI64::new(0), answers: AtomicU64::new(0) };

    fn wait_for(until: &timespec) -> (c_int, Duration) {
        let begun = Instant::now();
        let mut condition = libc::PTHREAD_COND_INITIALIZER;
        let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
        // SAFETY: all three live through the calls; nobody else has them.
        let status = unsafe {
            libc::pthread_mutex_lock(&raw mut mutex);
            pthread_cond_timedwait((&raw mut condition).cast(), (&raw mut mutex).cast(), until)
        };
        (status, begun.elapsed())
    }

    #[test]
    fn the_wall_clock_is_shifted_and_waits_notice_a_jump() {
        SHARED.store((&raw const HERE).cast_mut(), Ordering::Release);
        let (wall, monotonic) = (SystemTime::now(), Instant::now());
        assert_eq!(HERE.answers.load(Ordering::Relaxed), 0);
        HERE.shift_ms.store(86_400_000, Ordering::Relaxed);
        let ahead = SystemTime::now().duration_since(wall).unwrap();
        assert!((86_400..86_460).contains(&ahead.as_secs()), "{ahead:?}");
        assert!(monotonic.elapsed() < Duration::from_secs(60));
        // SAFETY: null is allowed.
        let seconds = unsafe { time(ptr::null_mut()) };
        assert!((seconds - at_nanos(true_wall_nanos()).tv_sec - 86_400).abs() <= 1);
        assert!(HERE.answers.load(Ordering::Relaxed) >= 2);

        // By the shifted clock, not for a day.
        let (status, took) = wait_for(&at_nanos(shifted_wall_nanos() + 200 * NANOS_PER_MILLI));
        assert_eq!(status, libc::ETIMEDOUT);
        assert!((Duration::from_millis(190)..Duration::from_secs(60)).contains(&took), "{took:?}");

        // An hour ahead it is over, as soon as the clock jumps by two.
        let until = at_nanos(shifted_wall_nanos() + 3_600 * NANOS_PER_SECOND);
        let jump = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            HERE.shift_ms.fetch_add(7_200_000, Ordering::Relaxed);
        });
        let (status, took) = wait_for(&until);
        assert_eq!(status, libc::ETIMEDOUT);
        assert!((Duration::from_millis(290)..Duration::from_secs(60)).contains(&took), "{took:?}");
        jump.join().unwrap();
        HERE.shift_ms.store(0, Ordering::Relaxed);
    }
}
