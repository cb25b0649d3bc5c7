/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "encryption/secret.h"
#include "encryption/vaes.h"
#include "encryption/xts.h"

/* Locked memory for the ciphers of all disks. */
#define POOL_BYTES (256 * 1024)
#define PAGE_BYTES 4096
#define TWEAK_BYTES 16
/* with which VAES is compared with libgcrypt; whole sectors of each size */
#define CHECK_BYTES (3 * WEIR_XTS_SECTOR_BYTES_MAX)

struct WeirXts {
    uint32_t sector_bytes;              /* set at new */
    unsigned made;                      /* set at new */
    WeirVaesKey *vaes;                  /* set at new; NULL: cannot be */
    unsigned vaes_bits;                 /* set before requests; 0: libgcrypt */
    pthread_mutex_t lock;
    pthread_cond_t free;                /* one was given back */
    unsigned idle;                      /* lock */
    gcry_cipher_hd_t ciphers[WEIR_XTS_CIPHERS_MAX]; /* lock; the idle ones */
};

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static int library_error;

/*
 * libgcrypt goes on without a word when it cannot lock its pool, and does not
 * keep it out of core dumps. So do both, by way of the pool's first piece.
 */
static int protect_pool(void)
{
    void *piece = gcry_malloc_secure(1);
    void *pool = (void *)((uintptr_t)piece & ~(uintptr_t)(PAGE_BYTES - 1));
    int ret = 0;

    if (!piece) {
        return -ENOMEM;
    }
    if (mlock(pool, POOL_BYTES) < 0 ||
        madvise(pool, POOL_BYTES, MADV_DONTDUMP) < 0) {
        ret = -errno;
    }
    gcry_free(piece);
    return ret;
}

/* Somebody else in the program may have initialised the library already. */
static void library_init(void)
{
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) {
        return;
    }
    if (!gcry_check_version(GCRYPT_VERSION)) {
        library_error = -ENOSYS;
        return;
    }
    gcry_control(GCRYCTL_DISABLE_SECMEM_WARN);
    gcry_control(GCRYCTL_INIT_SECMEM, POOL_BYTES, 0);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    library_error = protect_pool();
}

int weir_xts_library(void)
{
    pthread_once(&library_once, library_init);
    return library_error;
}

static int cipher_new(gcry_cipher_hd_t *cipher, const void *key,
                      size_t key_bytes)
{
    int algo = key_bytes == 32 ? GCRY_CIPHER_AES128 : GCRY_CIPHER_AES256;
    gcry_error_t err = gcry_cipher_open(cipher, algo, GCRY_CIPHER_MODE_XTS,
                                        GCRY_CIPHER_SECURE);

    if (err) {
        return gcry_err_code(err) == GPG_ERR_ENOMEM ? -ENOMEM : -ENOSYS;
    }
    if (gcry_cipher_setkey(*cipher, key, key_bytes)) {
        gcry_cipher_close(*cipher);
        return -EINVAL;
    }
    return 0;
}

/* --- sectors --- */

static void make_tweak(uint8_t tweak[TWEAK_BYTES], uint64_t unit)
{
    memset(tweak, 0, TWEAK_BYTES);
    for (int i = 0; i < 8; i++) {
        tweak[i] = unit >> (8 * i);
    }
}

typedef gcry_error_t CipherFn(gcry_cipher_hd_t cipher, void *out,
                              size_t out_bytes, const void *in,
                              size_t in_bytes);

static int crypt_sector(gcry_cipher_hd_t cipher, CipherFn *fn, uint64_t unit,
                        const uint8_t *in, uint8_t *out, size_t bytes)
{
    uint8_t tweak[TWEAK_BYTES];

    make_tweak(tweak, unit);
    if (gcry_cipher_setiv(cipher, tweak, sizeof(tweak)) ||
        fn(cipher, out, bytes, in == out ? NULL : in,
           in == out ? 0 : bytes)) {
        return -EIO;
    }
    return 0;
}

static int crypt_sectors(gcry_cipher_hd_t cipher, CipherFn *fn, uint64_t unit,
                         const uint8_t *in, uint8_t *out, size_t bytes,
                         size_t sector_bytes)
{
    int ret = 0;

    for (size_t at = 0; at < bytes && ret == 0; at += sector_bytes) {
        ret = crypt_sector(cipher, fn, unit + at / WEIR_XTS_UNIT_BYTES,
                           in + at, out + at, sector_bytes);
    }
    return ret;
}

/* --- VAES --- */

/* It does, with this key, what libgcrypt does. */
static bool vaes_is_good(WeirXts *xts, unsigned bits)
{
    const uint64_t unit = UINT64_C(0x123456789abcdef0);
    uint8_t plain[CHECK_BYTES], theirs[CHECK_BYTES], ours[CHECK_BYTES];

    for (size_t i = 0; i < sizeof(plain); i++) {
        plain[i] = (uint8_t)(i * 167 >> 3);
    }
    if (crypt_sectors(xts->ciphers[0], gcry_cipher_encrypt, unit, plain,
                      theirs, sizeof(plain), xts->sector_bytes) < 0) {
        return false;
    }
    weir_vaes_encrypt(xts->vaes, bits, unit, plain, ours, sizeof(plain),
                      xts->sector_bytes);
    if (memcmp(ours, theirs, sizeof(ours))) {
        return false;
    }
    weir_vaes_decrypt(xts->vaes, bits, unit, theirs, ours, sizeof(ours),
                      xts->sector_bytes);
    return !memcmp(ours, plain, sizeof(ours));
}

/* With larger sectors, libgcrypt is as fast as the narrow ones. */
static bool vaes_is_faster(const WeirXts *xts, unsigned bits)
{
    return bits > 256 || xts->sector_bytes < 4096;
}

unsigned weir_xts_set_vaes(WeirXts *xts, unsigned bits)
{
    static const unsigned widths[] = { 512, 256 };

    xts->vaes_bits = 0;
    for (size_t i = 0; i < 2 && xts->vaes && xts->vaes_bits == 0; i++) {
        if (widths[i] <= bits && weir_vaes_supported(widths[i]) &&
            vaes_is_faster(xts, widths[i]) && vaes_is_good(xts, widths[i])) {
            xts->vaes_bits = widths[i];
        }
    }
    return xts->vaes_bits;
}

/* Without it, or without locked memory for it, libgcrypt does. */
static void vaes_new(WeirXts *xts, const void *key, size_t key_bytes)
{
    void *secret;

    if (!weir_vaes_supported(256) ||
        weir_secret_new(&secret, sizeof(*xts->vaes)) < 0) {
        return;
    }
    xts->vaes = secret;
    weir_vaes_set_key(xts->vaes, key, key_bytes);
    weir_xts_set_vaes(xts, WEIR_VAES_BITS_MAX);
}

/* --- new --- */

static bool arguments_are_good(const uint8_t *key, size_t key_bytes,
                               uint32_t sector_bytes, unsigned ciphers)
{
    bool is_power = !(sector_bytes & (sector_bytes - 1));

    return (key_bytes == 32 || key_bytes == 64) &&
           memcmp(key, key + key_bytes / 2, key_bytes / 2) &&
           sector_bytes >= 512 && sector_bytes <= WEIR_XTS_SECTOR_BYTES_MAX &&
           is_power &&
           ciphers >= 1 && ciphers <= WEIR_XTS_CIPHERS_MAX;
}

/* As many as there is memory for. */
static int make_ciphers(WeirXts *xts, const void *key, size_t key_bytes,
                        unsigned ciphers)
{
    int ret = 0;

    while (xts->made < ciphers && ret == 0) {
        ret = cipher_new(&xts->ciphers[xts->made], key, key_bytes);
        xts->made += ret == 0;
    }
    xts->idle = xts->made;
    return xts->made ? 0 : ret;
}

int weir_xts_new(WeirXts **out, const void *key, size_t key_bytes,
                 uint32_t sector_bytes, unsigned ciphers)
{
    WeirXts *xts;
    int ret;

    *out = NULL;
    if (!arguments_are_good(key, key_bytes, sector_bytes, ciphers)) {
        return -EINVAL;
    }
    ret = weir_xts_library();
    if (ret < 0) {
        return ret;
    }
    xts = calloc(1, sizeof(*xts));
    if (!xts) {
        return -ENOMEM;
    }
    xts->sector_bytes = sector_bytes;
    pthread_mutex_init(&xts->lock, NULL);
    pthread_cond_init(&xts->free, NULL);
    ret = make_ciphers(xts, key, key_bytes, ciphers);
    if (ret < 0) {
        weir_xts_free(xts);
        return ret;
    }
    vaes_new(xts, key, key_bytes);
    *out = xts;
    return 0;
}

void weir_xts_free(WeirXts *xts)
{
    if (!xts) {
        return;
    }
    for (unsigned i = 0; i < xts->made; i++) {
        gcry_cipher_close(xts->ciphers[i]);
    }
    weir_secret_free(xts->vaes, sizeof(*xts->vaes));
    pthread_cond_destroy(&xts->free);
    pthread_mutex_destroy(&xts->lock);
    free(xts);
}

/* --- runs --- */

static gcry_cipher_hd_t take_cipher(WeirXts *xts)
{
    gcry_cipher_hd_t cipher;

    pthread_mutex_lock(&xts->lock);
    while (xts->idle == 0) {
        pthread_cond_wait(&xts->free, &xts->lock);
    }
    cipher = xts->ciphers[--xts->idle];
    pthread_mutex_unlock(&xts->lock);
    return cipher;
}

static void give_cipher(WeirXts *xts, gcry_cipher_hd_t cipher)
{
    pthread_mutex_lock(&xts->lock);
    xts->ciphers[xts->idle++] = cipher;
    pthread_cond_signal(&xts->free);
    pthread_mutex_unlock(&xts->lock);
}

static int crypt_run(WeirXts *xts, CipherFn *fn, uint64_t unit,
                     const uint8_t *in, uint8_t *out, size_t bytes)
{
    gcry_cipher_hd_t cipher = take_cipher(xts);
    int ret = crypt_sectors(cipher, fn, unit, in, out, bytes,
                            xts->sector_bytes);

    give_cipher(xts, cipher);
    return ret;
}

uint32_t weir_xts_sector_bytes(const WeirXts *xts)
{
    return xts->sector_bytes;
}

bool weir_xts_writes_once(const WeirXts *xts)
{
    return xts->vaes_bits;
}

int weir_xts_encrypt(WeirXts *xts, uint64_t unit, const void *in, void *out,
                     size_t bytes)
{
    if (bytes % xts->sector_bytes) {
        return -EINVAL;
    }
    if (xts->vaes_bits) {
        weir_vaes_encrypt(xts->vaes, xts->vaes_bits, unit, in, out, bytes,
                          xts->sector_bytes);
        return 0;
    }
    return crypt_run(xts, gcry_cipher_encrypt, unit, in, out, bytes);
}

int weir_xts_decrypt(WeirXts *xts, uint64_t unit, const void *in, void *out,
                     size_t bytes)
{
    if (bytes % xts->sector_bytes) {
        return -EINVAL;
    }
    if (xts->vaes_bits) {
        weir_vaes_decrypt(xts->vaes, xts->vaes_bits, unit, in, out, bytes,
                          xts->sector_bytes);
        return 0;
    }
    return crypt_run(xts, gcry_cipher_decrypt, unit, in, out, bytes);
}
