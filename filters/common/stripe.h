/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_COMMON_STRIPE_H
#define WEIR_COMMON_STRIPE_H

#include <stdint.h>

/*
 * Counters that many threads update: one copy ("stripe") per thread, added up
 * when somebody reads. The first WEIR_STRIPES - 1 threads that are alive own
 * one stripe each, the same one in all counters of the process; all further
 * threads share the last. An owner adds with a plain load and store, which
 * costs a fraction of a locked instruction.
 *
 * One set of counters must be updated through one copy of this library only:
 * another copy (in another shared object, symbols not shared) numbers the
 * threads in its own way.
 */

#define WEIR_CACHE_LINE_BYTES 64
#define WEIR_STRIPES 16
#define WEIR_STRIPE_SHARED (WEIR_STRIPES - 1)

/*
 * For weir_stripe() only: 1 + the stripe of this thread, 0 before it has one.
 * Initial-exec, so that a module of a program reads it without a call.
 */
extern __thread unsigned weir_stripe_plus_1
    __attribute__((tls_model("initial-exec")));
unsigned weir_stripe_claim(void);

/*
 * The calling thread's stripe. It is given back when the thread ends.
 * In a function that no coroutine yields in: neither the result nor the address
 * of the variable may be kept where a coroutine changes its thread.
 * Thread-safe, does not block. Returns 0..WEIR_STRIPES - 1.
 */
static inline unsigned weir_stripe(void)
{
    unsigned plus_1 = weir_stripe_plus_1;

    return __builtin_expect(plus_1 != 0, 1) ? plus_1 - 1 : weir_stripe_claim();
}

/*
 * Add n to a counter in the caller's stripe.
 * stripe: from weir_stripe(), in this thread.
 * What the thread did before is visible to whoever reads the new value with
 * weir_stripe_load(). Lock-free, does not block.
 */
static inline void weir_stripe_add(uint64_t *counter, uint64_t n,
                                   unsigned stripe)
{
    if (__builtin_expect(stripe == WEIR_STRIPE_SHARED, 0)) {
        __atomic_fetch_add(counter, n, __ATOMIC_RELEASE);
    } else {
        uint64_t old = __atomic_load_n(counter, __ATOMIC_RELAXED);

        __atomic_store_n(counter, old + n, __ATOMIC_RELEASE);
    }
}

/* Read a counter of any stripe. Lock-free, does not block. */
static inline uint64_t weir_stripe_load(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

#endif
