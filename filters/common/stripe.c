/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stripe numbers for threads.
 *
 *   no stripe yet --claim()--> owner of a free bit --thread ends--> bit is free
 *                       \---> no bit is free: shared, until the thread ends
 *
 * A bit is freed with release and taken with acquire order, so that the next
 * owner sees the counters as the last one left them.
 */
#include "common/stripe.h"

#include <pthread.h>
#include <stdbool.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_valid;                  /* set once, before it is read */
static uint32_t owned;                  /* bit per stripe; atomic */
__thread unsigned weir_stripe_plus_1;

/* Runs in a thread that ends, for the stripe that it owned. */
static void give_back(void *opaque)
{
    unsigned stripe = (unsigned)(uintptr_t)opaque - 1;

    weir_stripe_plus_1 = WEIR_STRIPE_SHARED + 1;
    __atomic_fetch_and(&owned, ~(UINT32_C(1) << stripe), __ATOMIC_RELEASE);
}

static void make_key(void)
{
    key_valid = pthread_key_create(&key, give_back) == 0;
}

static unsigned take_free_bit(void)
{
    uint32_t now = __atomic_load_n(&owned, __ATOMIC_RELAXED);

    for (;;) {
        unsigned bit = (unsigned)__builtin_ctz(~now);

        if (bit >= WEIR_STRIPE_SHARED) {
            return WEIR_STRIPE_SHARED;
        }
        if (__atomic_compare_exchange_n(&owned, &now,
                                        now | UINT32_C(1) << bit, false,
                                        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            return bit;
        }
    }
}

unsigned weir_stripe_claim(void)
{
    unsigned stripe = WEIR_STRIPE_SHARED;

    pthread_once(&once, make_key);
    if (key_valid) {
        stripe = take_free_bit();
    }
    if (stripe != WEIR_STRIPE_SHARED &&
        pthread_setspecific(key, (void *)(uintptr_t)(stripe + 1)) != 0) {
        __atomic_fetch_and(&owned, ~(UINT32_C(1) << stripe), __ATOMIC_RELEASE);
        stripe = WEIR_STRIPE_SHARED;
    }
    weir_stripe_plus_1 = stripe + 1;
    return stripe;
}
