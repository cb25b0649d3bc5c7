/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "encryption/keyid.h"
#include "encryption/secret.h"
#include "encryption/xts.h"

#define HASH_BYTES 32

struct WeirKeyId {
    uint8_t hash[HASH_BYTES];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *hash_key;                  /* of HASH_BYTES; for good */
static int once_error;

static void make_hash_key(void)
{
    once_error = weir_xts_library();
    if (once_error == 0) {
        once_error = weir_secret_new(&hash_key, HASH_BYTES);
    }
    if (once_error == 0) {
        gcry_randomize(hash_key, HASH_BYTES, GCRY_STRONG_RANDOM);
    }
}

static int make_hash(uint8_t *hash, const void *key, size_t key_bytes)
{
    gcry_md_hd_t md;
    int ret = 0;

    if (gcry_md_open(&md, GCRY_MD_SHA256,
                     GCRY_MD_FLAG_HMAC | GCRY_MD_FLAG_SECURE)) {
        return -ENOMEM;
    }
    if (gcry_md_setkey(md, hash_key, HASH_BYTES)) {
        ret = -ENOSYS;
    } else {
        gcry_md_write(md, key, key_bytes);
        memcpy(hash, gcry_md_read(md, GCRY_MD_SHA256), HASH_BYTES);
    }
    gcry_md_close(md);
    return ret;
}

int weir_key_id_new(WeirKeyId **out, const void *key, size_t key_bytes)
{
    void *secret;
    int ret;

    *out = NULL;
    pthread_once(&once, make_hash_key);
    if (once_error < 0) {
        return once_error;
    }
    ret = weir_secret_new(&secret, sizeof(WeirKeyId));
    if (ret < 0) {
        return ret;
    }
    *out = secret;
    ret = make_hash((*out)->hash, key, key_bytes);
    if (ret < 0) {
        weir_key_id_free(*out);
        *out = NULL;
    }
    return ret;
}

void weir_key_id_free(WeirKeyId *id)
{
    weir_secret_free(id, sizeof(*id));
}

bool weir_key_id_equal(const WeirKeyId *a, const WeirKeyId *b)
{
    return !memcmp(a->hash, b->hash, HASH_BYTES);
}
