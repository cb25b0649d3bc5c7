/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files that work on a WeirHeader share. */
#ifndef WEIR_ENCRYPTION_HEADER_INT_H
#define WEIR_ENCRYPTION_HEADER_INT_H

#include <json-c/json.h>
#include <libcryptsetup.h>

#include "encryption/header.h"

#define LOG_BYTES 192
#define METADATA_COPIES 2
#define WEIR_HEADER_TOKENS 32

struct WeirHeader {
    struct crypt_device *device;    /* NULL until there is one */
    int fd;                         /* memfd as long as the disk */
    int data_fd;                    /* memfd that stands for the data, or -1 */
    WeirHeaderInfo info;
    WeirHeaderKeyslot keyslots[WEIR_HEADER_KEYSLOTS];
    size_t n_keyslots;
    uint8_t *on_disk;               /* what the disk has; header_bytes */
    uint8_t *repaired;              /* what both copies should be there; NULL
                                       when they are */
    uint8_t *used;                  /* which blocks are; see update.c */
    bool is_new;                    /* not written yet */
    bool is_lost;                   /* what the disk has is not known */
    char log[LOG_BYTES];            /* last error of libcryptsetup */
};

#define hidden __attribute__((visibility("hidden")))

/* Around all calls of libcryptsetup, which has global state. Not recursive. */
hidden void weir_header_enter(void);
hidden void weir_header_leave(void);

/* A header without a device over an empty memfd of that length. */
hidden int weir_header_new(WeirHeader **header, uint64_t disk_bytes, char *err,
                           size_t err_size);

/* An empty memfd of that length, or -errno. */
hidden int weir_header_memfd(uint64_t bytes);

/* How libcryptsetup names that file. */
#define FD_PATH_BYTES 32
hidden void weir_header_fd_path(char path[FD_PATH_BYTES], int fd);

/* Copy all but zeroes: the target has them, and need not hold them. */
hidden void weir_header_copy_sparse(uint8_t *to, const uint8_t *from,
                                    size_t n_bytes);

/*
 * Keep what the disk has, header_bytes of it; NULL: the header is a new one.
 * Called once. Returns 0 or -ENOMEM.
 */
hidden int weir_header_set_on_disk(WeirHeader *header, const void *bytes);

/* Fill in what the info has of the length that the header is bound to. */
hidden int weir_header_read_binding(WeirHeader *header, json_object *json,
                                    char *err, size_t err_size);

/* Fill in the list of keyslots; after each change. */
hidden void weir_header_list_keyslots(WeirHeader *header);

/* Take libcryptsetup's messages. */
hidden void weir_header_catch_log(WeirHeader *header);

/*
 * End of making a new object: give it to the caller with ret 0, or free it.
 * Not between weir_header_enter() and _leave(). Returns ret.
 */
hidden int weir_header_give(WeirHeader **out, WeirHeader *header, int ret);

/* Fill in the info, and check that the image is one that we can work with. */
hidden int weir_header_check(WeirHeader *header, uint64_t disk_bytes,
                             bool detached, char *err, size_t err_size);

/*
 * Put a message into err: the text, then what libcryptsetup had to say.
 * Returns ret.
 */
hidden int weir_header_fail(WeirHeader *header, int ret, char *err,
                            size_t err_size, const char *text);

/* The metadata as JSON, valid until the header is changed; or NULL. */
hidden const char *weir_header_text(WeirHeader *header);

/* The same, read; to be given back with json_object_put(). Or NULL. */
hidden json_object *weir_header_json(WeirHeader *header);

/* Open the device again, after its memfd was changed by other means. */
hidden int weir_header_reload(WeirHeader *header, char *err, size_t err_size);

/* weir_header_unlock() for any of the keyslots of a bit mask. */
hidden int weir_header_unlock_some(WeirHeader *header, uint32_t keyslots,
                                   const void *passphrase,
                                   size_t passphrase_bytes,
                                   const WeirHeaderLimits *limits, void *key,
                                   char *err, size_t err_size);

/*
 * Which of the keyslots in use, those to be ignored as well, a passphrase
 * opens: a bit mask, 0 when it opens none. What costs more than the limits is
 * not tried.
 * key: room for key_bytes of the info; what it gets is of no use.
 */
hidden uint32_t weir_header_opened_by(WeirHeader *header,
                                      const WeirHeaderPassphrase *passphrase,
                                      const WeirHeaderLimits *limits,
                                      void *key);

/* Set how the next keyslot derives its key. */
hidden int weir_header_set_kdf(WeirHeader *header, const WeirHeaderKdf *kdf,
                               char *err, size_t err_size);

#endif
