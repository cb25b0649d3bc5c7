/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a policy wants of the storage under a disk: its key "storage". */
#ifndef WEIR_STORAGE_H
#define WEIR_STORAGE_H

#include "disk.h"
#include "json.h"
#include "validate.h"

typedef enum WeirStorageRule {
    WEIR_STORAGE_DRIVER,
    WEIR_STORAGE_DISCARD,
    WEIR_STORAGE_DIRECT_IO,
    WEIR_STORAGE_MIN_SIZE,
    WEIR_STORAGE_RULES,
} WeirStorageRule;

typedef struct WeirStorage {
    char **drivers;         /* one of them; NULL: any */
    bool discard;           /* has to work */
    bool direct_io;         /* has to be possible */
    guint64 min_bytes;      /* that the guest sees; 0: any */
    /* "file:line:column" of each rule; NULL: there is none */
    char *at[WEIR_STORAGE_RULES];
} WeirStorage;

/* What a disk's storage is like. */
typedef struct WeirStorageFacts {
    const char *driver;     /* of the storage node; static */
    char *no_discard;       /* why discards do not work; NULL: they do */
    char *no_direct_io;     /* the same of O_DIRECT */
    guint64 bytes;          /* that the guest sees */
} WeirStorageFacts;

/* As libcyaml loads the key. */
typedef struct WeirStorageDocument {
    uint32_t *drivers;
    uint64_t driver_count;
    uint32_t *discard;
    uint32_t *direct_io;
    char *min_size;
} WeirStorageDocument;

/* The schema of the key, as a pointer to a WeirStorageDocument. */
cyaml_schema_value_t weir_storage_schema(void);

/* Tell what the schema cannot say.  @storage: what the schema is right of */
void weir_storage_validate(const WeirYaml *storage, WeirReport *report);

/*
 * The rules.  @storage: the same text as a tree.  The caller frees them with
 * weir_storage_free().
 */
WeirStorage *weir_storage_new(const WeirStorageDocument *document,
                              const WeirYaml *storage);

/* NULL is fine. */
void weir_storage_free(WeirStorage *storage);

/* The rules as a JSON object that the caller unrefs. */
JsonObject *weir_storage_json(const WeirStorage *storage);

/*
 * Look at the storage of @disk, which may be in use.  Nothing of it changes.
 * Blocks.  @bin_dir: as in weir_program_find().  Returns false with @error
 * set if that is not possible; else the caller clears @facts.
 */
bool weir_storage_probe(const WeirDisk *disk, const char *bin_dir,
                        WeirStorageFacts *facts, GError **error);

void weir_storage_facts_clear(WeirStorageFacts *facts);

/*
 * Compare.  @disk: names the disk in messages.  Returns false with @error set
 * to WEIR_ERROR_POSITION: a line for each rule that is not met.
 */
bool weir_storage_compare(const WeirStorage *storage,
                          const WeirStorageFacts *facts, const char *disk,
                          GError **error);

/* Probe @disk and compare, if there are rules; @storage may be NULL. */
bool weir_storage_check(const WeirStorage *storage, const WeirDisk *disk,
                        const char *bin_dir, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirStorage, weir_storage_free)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirStorageFacts, weir_storage_facts_clear)

#endif
