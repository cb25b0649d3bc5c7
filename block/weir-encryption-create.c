/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * New encrypted images: for blockdev-create, qemu-img create and convert.
 *
 *   make the header, in a thread -> set the disk's length -> write the header
 *
 * So nothing on the disk is touched before all that can be wrong with the
 * options has been found, and there is no header before there is room for data.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qapi/qobject-input-visitor.h"
#include "qemu/option.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "weir-encryption.h"

#define HEADER_BYTES WEIR_HEADER_BYTES_USUAL
/* Beyond the header; the data goes on to the end of whatever disk it is. */
#define SOME_DATA_BYTES (1 * MiB)

#define KEY_BITS_DEFAULT 512
#define SECTOR_BYTES_DEFAULT 512
/*
 * Not measured: an image is opened on other machines than where it was made,
 * and a busy machine must not make a weak one.
 */
#define ARGON2_ITERATIONS_DEFAULT 4
#define ARGON2_MEMORY_DEFAULT (256 * MiB)
#define ARGON2_THREADS_DEFAULT 4
#define PBKDF2_ITERATIONS_DEFAULT 600000

/* --- options --- */

static int check_memory(const WeirKdfOptions *options, bool is_pbkdf2,
                        Error **errp)
{
    uint64_t bytes = options->kdf_memory;

    if (is_pbkdf2 && (options->has_kdf_memory || options->has_kdf_threads)) {
        error_setg(errp, "weir-encryption: kdf-memory and kdf-threads are not "
                   "for pbkdf2");
        return -EINVAL;
    }
    if (options->has_kdf_memory && (bytes % KiB || bytes / KiB > UINT32_MAX)) {
        error_setg(errp, "weir-encryption: kdf-memory must be a number of KiB, "
                   "and less than 4 TiB");
        return -EINVAL;
    }
    return 0;
}

int weir_kdf_from_options(WeirHeaderKdf *kdf, const WeirKdfOptions *options,
                          Error **errp)
{
    WeirKdf type = options->has_kdf ? options->kdf : WEIR_KDF_ARGON2ID;
    bool is_pbkdf2 = type == WEIR_KDF_PBKDF2;

    if (check_memory(options, is_pbkdf2, errp) < 0) {
        return -EINVAL;
    }
    *kdf = (WeirHeaderKdf) {
        .type = WeirKdf_str(type),
        .iterations = is_pbkdf2 ? PBKDF2_ITERATIONS_DEFAULT
                                : ARGON2_ITERATIONS_DEFAULT,
        .memory_kib = is_pbkdf2 ? 0 : ARGON2_MEMORY_DEFAULT / KiB,
        .threads = is_pbkdf2 ? 0 : ARGON2_THREADS_DEFAULT,
    };
    if (options->has_kdf_iterations) {
        kdf->iterations = options->kdf_iterations;
    }
    if (options->has_kdf_memory) {
        kdf->memory_kib = options->kdf_memory / KiB;
    }
    if (options->has_kdf_threads) {
        kdf->threads = options->kdf_threads;
    }
    return 0;
}

static int check_key(const BlockdevCreateOptionsWeirEncryption *opts,
                     Error **errp)
{
    if (opts->has_key_bits && opts->key_bits != 256 && opts->key_bits != 512) {
        error_setg(errp, "weir-encryption: key-bits must be 256 or 512, not "
                   "%u", opts->key_bits);
        return -EINVAL;
    }
    if (opts->has_sector_size && opts->sector_size != 512 &&
        opts->sector_size != 4096) {
        error_setg(errp, "weir-encryption: sector-size must be 512 or 4096, "
                   "not %u", opts->sector_size);
        return -EINVAL;
    }
    return 0;
}

static uint32_t sector_bytes(const BlockdevCreateOptionsWeirEncryption *opts)
{
    return opts->has_sector_size ? opts->sector_size : SECTOR_BYTES_DEFAULT;
}

static int check_options(const BlockdevCreateOptionsWeirEncryption *opts,
                         Error **errp)
{
    if (check_key(opts, errp) < 0) {
        return -EINVAL;
    }
    if (opts->has_size && opts->size % sector_bytes(opts)) {
        error_setg(errp, "weir-encryption: The size must be a multiple of the "
                   "image's sectors of %u bytes", sector_bytes(opts));
        return -EINVAL;
    }
    if (opts->has_size && opts->size > INT64_MAX - HEADER_BYTES) {
        error_setg(errp, "weir-encryption: The size is too large");
        return -EFBIG;
    }
    if (opts->has_preallocation && !opts->has_size) {
        error_setg(errp, "weir-encryption: preallocation needs a size");
        return -EINVAL;
    }
    return 0;
}

/* --- the header, in a thread --- */

typedef struct Create {
    WeirHeaderFormat format;
    WeirHeaderKdf kdf;
    WeirPassphrase passphrase;
    WeirHeader *header;
    char message[256];
} Create;

static int create_thread(void *opaque)
{
    Create *c = opaque;

    return weir_header_create(&c->header, &c->format, &c->kdf,
                              c->passphrase.bytes, c->passphrase.n_bytes,
                              c->message, sizeof(c->message));
}

static int coroutine_fn make_header(
    const BlockdevCreateOptionsWeirEncryption *opts, bool detached,
    WeirHeader **header, Error **errp)
{
    Create c = {
        .format = {
            .disk_bytes = HEADER_BYTES + SOME_DATA_BYTES,
            .detached = detached,
            .key_bytes = (opts->has_key_bits ? opts->key_bits
                                             : KEY_BITS_DEFAULT) / 8,
            .sector_bytes = sector_bytes(opts),
            .uuid = opts->uuid,
        },
    };
    int ret = check_options(opts, errp);

    *header = NULL;
    if (ret == 0) {
        ret = weir_kdf_from_options(
            &c.kdf, (const WeirKdfOptions *)
            qapi_BlockdevCreateOptionsWeirEncryption_base(opts), errp);
    }
    if (ret == 0) {
        ret = weir_passphrase_get(&c.passphrase, opts->key_secret, errp);
    }
    if (ret < 0) {
        return ret;
    }
    ret = weir_encryption_run(create_thread, &c);
    weir_passphrase_free(&c.passphrase);
    if (ret < 0) {
        error_setg(errp, "weir-encryption: %s", c.message);
    }
    *header = c.header;
    return ret;
}

/* --- the disk --- */

/* Its length: header and data, or what it has room for. */
static int coroutine_fn set_length(BlockBackend *blk, int64_t header_bytes,
                                   const BlockdevCreateOptionsWeirEncryption *o,
                                   Error **errp)
{
    PreallocMode prealloc = o->has_preallocation ? o->preallocation
                                                 : PREALLOC_MODE_OFF;
    int64_t bytes;

    if (o->has_size) {
        /* there is no metadata but the header */
        prealloc = prealloc == PREALLOC_MODE_METADATA ? PREALLOC_MODE_OFF
                                                      : prealloc;
        return blk_co_truncate(blk, header_bytes + o->size, false, prealloc, 0,
                               errp);
    }
    bytes = blk_co_getlength(blk);
    if (bytes < 0) {
        error_setg_errno(errp, -bytes, "weir-encryption: Cannot tell the "
                         "length of node '%s'",
                         bdrv_get_node_name(blk_bs(blk)));
        return bytes;
    }
    if (bytes < header_bytes) {
        error_setg(errp, "weir-encryption: Node '%s' with %" PRId64 " bytes "
                   "has no room for the header of %" PRId64,
                   bdrv_get_node_name(blk_bs(blk)), bytes, header_bytes);
        return -ENOSPC;
    }
    return 0;
}

/* A node for the header alone is made as long as that, if it is shorter. */
static int coroutine_fn grow_for_header(BlockBackend *blk, Error **errp)
{
    int64_t bytes = blk_co_getlength(blk);

    return bytes >= HEADER_BYTES ? 0 :
           blk_co_truncate(blk, HEADER_BYTES, false, PREALLOC_MODE_OFF, 0,
                           errp);
}

typedef struct Bind {
    WeirHeader *header;
    uint64_t data_bytes;
    char message[256];
} Bind;

static int bind_thread(void *opaque)
{
    Bind *bind = opaque;

    return weir_header_bind(bind->header, bind->data_bytes, bind->data_bytes,
                            bind->message, sizeof(bind->message));
}

/* A header that is apart tells the length of the disk that it is for. */
static int coroutine_fn bind_header(BlockBackend *file, WeirHeader *header,
                                    Error **errp)
{
    Bind bind = { .header = header };
    int64_t bytes = blk_co_getlength(file);
    int ret;

    if (bytes < 0) {
        error_setg_errno(errp, -bytes, "weir-encryption: Cannot tell the "
                         "length of node '%s'",
                         bdrv_get_node_name(blk_bs(file)));
        return bytes;
    }
    bind.data_bytes = QEMU_ALIGN_DOWN(bytes,
                                      weir_header_info(header)->sector_bytes);
    ret = weir_encryption_run(bind_thread, &bind);
    if (ret < 0) {
        error_setg(errp, "weir-encryption: %s", bind.message);
    }
    return ret;
}

static int coroutine_fn write_header(BlockBackend *blk, WeirHeader *header,
                                     Error **errp)
{
    WeirHeaderPlace place;

    weir_header_place_of_blk(&place, blk);
    return weir_header_to_disk(&place, header, errp);
}

static int coroutine_fn write_image(
    BlockBackend *file, BlockBackend *header_blk, WeirHeader *header,
    const BlockdevCreateOptionsWeirEncryption *opts, Error **errp)
{
    int ret = 0;

    if (file) {
        ret = set_length(file, header_blk ? 0 : HEADER_BYTES, opts, errp);
    }
    if (ret >= 0 && header_blk) {
        ret = grow_for_header(header_blk, errp);
    }
    if (ret >= 0 && file && header_blk) {
        ret = bind_header(file, header, errp);
    }
    return ret < 0 ? ret : write_header(header_blk ?: file, header, errp);
}

/* --- blockdev-create --- */

static BlockBackend *coroutine_fn open_node(BlockdevRef *ref, Error **errp)
{
    BlockDriverState *bs = bdrv_co_open_blockdev_ref(ref, errp);
    BlockBackend *blk;

    if (!bs) {
        return NULL;
    }
    blk = blk_co_new_with_bs(bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                             BLK_PERM_RESIZE, BLK_PERM_CONSISTENT_READ |
                             BLK_PERM_WRITE_UNCHANGED, errp);
    if (blk) {
        /* or the end of QEMU, which drains all and waits for jobs, hangs */
        blk_set_disable_request_queuing(blk, true);
    }
    bdrv_co_unref(bs);
    return blk;
}

static int coroutine_fn open_nodes(BlockdevCreateOptionsWeirEncryption *opts,
                                   BlockBackend **file, BlockBackend **header,
                                   Error **errp)
{
    *file = *header = NULL;
    if (!opts->file && !opts->header) {
        error_setg(errp, "weir-encryption: Either 'file' or 'header' must be "
                   "given");
        return -EINVAL;
    }
    if (!opts->file && opts->has_size) {
        error_setg(errp, "weir-encryption: A size needs 'file'");
        return -EINVAL;
    }
    if (opts->file) {
        *file = open_node(opts->file, errp);
    }
    if (opts->header && (*file || !opts->file)) {
        *header = open_node(opts->header, errp);
    }
    return (opts->file && !*file) || (opts->header && !*header) ? -EINVAL : 0;
}

static void coroutine_fn close_nodes(BlockBackend *file, BlockBackend *header)
{
    blk_co_unref(file);
    blk_co_unref(header);
}

int coroutine_fn weir_encryption_co_create(BlockdevCreateOptions *options,
                                           Error **errp)
{
    BlockdevCreateOptionsWeirEncryption *opts = &options->u.weir_encryption;
    BlockBackend *file, *header_blk;
    WeirHeader *header = NULL;
    int ret = open_nodes(opts, &file, &header_blk, errp);

    if (ret == 0) {
        ret = make_header(opts, header_blk, &header, errp);
    }
    if (ret == 0) {
        ret = write_image(file, header_blk, header, opts, errp);
    }
    weir_header_drop(header);
    close_nodes(file, header_blk);
    return ret;
}

/* --- qemu-img --- */

#define OPT(opt, opt_type, opt_help) \
    { .name = opt, .type = QEMU_OPT_##opt_type, .help = opt_help }

QemuOptsList weir_encryption_create_opts = {
    .name = "weir-encryption-create-opts",
    .head = QTAILQ_HEAD_INITIALIZER(weir_encryption_create_opts.head),
    .desc = {
        OPT(BLOCK_OPT_SIZE, SIZE, "Virtual disk size"),
        OPT(BLOCK_OPT_PREALLOC, STRING, "Preallocation mode (allowed values: "
            "off, metadata, falloc, full)"),
        OPT("header", STRING, "File for the header (default: it comes before "
            "the data)"),
        OPT("key-secret", STRING, "ID of the secret with the passphrase"),
        OPT("key-bits", NUMBER, "Bits of the volume key: 256 or 512 "
            "(default)"),
        OPT("sector-size", NUMBER, "Bytes that are encrypted as one: 512 "
            "(default) or 4096"),
        OPT("uuid", STRING, "UUID of the image (default: a random one)"),
        WEIR_KDF_OPTS
        { /* end of list */ }
    },
};

/* The options of qemu-img but the header's file, as those of QMP. */
static BlockdevCreateOptions *parse_opts(QemuOpts *opts, char **header_file,
                                         Error **errp)
{
    g_autoptr(QDict) qdict = qemu_opts_to_qdict_filtered(
        opts, NULL, &weir_encryption_create_opts, true);
    BlockdevCreateOptions *options = NULL;
    Visitor *v;

    *header_file = g_strdup(qdict_get_try_str(qdict, "header"));
    qdict_del(qdict, "header");
    qdict_put_str(qdict, "driver", "weir-encryption");
    v = qobject_input_visitor_new_flat_confused(qdict, errp);
    if (v) {
        visit_type_BlockdevCreateOptions(v, NULL, &options, errp);
        visit_free(v);
    }
    return options;
}

static BlockBackend *coroutine_fn create_file(const char *filename,
                                              QemuOpts *opts, Error **errp)
{
    BlockDriverState *bs;
    BlockBackend *blk;

    if (bdrv_co_create_file(filename, opts, errp) < 0) {
        return NULL;
    }
    bs = bdrv_co_open(filename, NULL, NULL,
                      BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_PROTOCOL, errp);
    if (!bs) {
        return NULL;
    }
    blk = blk_co_new_with_bs(bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                             BLK_PERM_RESIZE, BLK_PERM_ALL, errp);
    bdrv_co_unref(bs);
    return blk;
}

/* Even if there was one before, it has been emptied. */
static void coroutine_fn delete_file(BlockBackend *blk)
{
    if (blk) {
        bdrv_graph_co_rdlock();
        bdrv_co_delete_file_noerr(blk_bs(blk));
        bdrv_graph_co_rdunlock();
    }
}

static int coroutine_fn create_files(
    const char *filename, const char *header_file, QemuOpts *opts,
    const BlockdevCreateOptionsWeirEncryption *create, WeirHeader *header,
    Error **errp)
{
    BlockBackend *header_blk = NULL;
    BlockBackend *file = create_file(filename, opts, errp);
    int ret = file ? 0 : -EINVAL;

    if (ret == 0 && header_file) {
        header_blk = create_file(header_file, opts, errp);
        ret = header_blk ? 0 : -EINVAL;
    }
    if (ret == 0) {
        ret = write_image(file, header_blk, header, create, errp);
    }
    if (ret < 0) {
        delete_file(file);
        delete_file(header_blk);
    }
    close_nodes(file, header_blk);
    return ret;
}

int coroutine_fn weir_encryption_co_create_opts(BlockDriver *drv,
                                                const char *filename,
                                                QemuOpts *opts, Error **errp)
{
    g_autofree char *header_file = NULL;
    g_autoptr(BlockdevCreateOptions) options =
        parse_opts(opts, &header_file, errp);
    BlockdevCreateOptionsWeirEncryption *create;
    WeirHeader *header;
    int ret;

    if (!options) {
        return -EINVAL;
    }
    create = &options->u.weir_encryption;
    ret = make_header(create, header_file, &header, errp);
    if (ret == 0) {
        ret = create_files(filename, header_file, opts, create, header, errp);
    }
    weir_header_drop(header);
    return ret;
}

/* All data is encrypted, so it does not matter what is allocated. */
BlockMeasureInfo *weir_encryption_measure(QemuOpts *opts,
                                          BlockDriverState *in_bs,
                                          Error **errp)
{
    g_autofree char *header_file = qemu_opt_get_del(opts, "header");
    int64_t bytes = qemu_opt_get_size_del(opts, BLOCK_OPT_SIZE, 0);
    BlockMeasureInfo *info;

    g_free(qemu_opt_get_del(opts, BLOCK_OPT_PREALLOC));
    if (in_bs) {
        bytes = bdrv_getlength(in_bs);
        if (bytes < 0) {
            error_setg_errno(errp, -bytes, "Unable to get image virtual_size");
            return NULL;
        }
    }
    info = g_new0(BlockMeasureInfo, 1);
    info->required = bytes + (header_file ? 0 : HEADER_BYTES);
    info->fully_allocated = info->required;
    return info;
}
