/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-plugin.h: write a filter of virtual disks as a shared object.
 *
 * A plugin fills in one WeirPlugin and registers it.  Weir's block driver
 * "weir-plugin" loads it and gives it the requests of each disk that it is put
 * under.  See weir-plugin(3); the page begins with a complete plugin.
 *
 * Callbacks are written straight down: a call that does I/O blocks the caller
 * until it is done, but not the thread, which goes on with other requests.
 * Whatever else would block the thread (a system call that waits, a long
 * computation, a lock that is held over I/O) belongs into weir_plugin_run(),
 * or is replaced by a call from here.  The stack is 1 MiB long.
 *
 * Names begin with weir_plugin_, WeirPlugin or WEIR_PLUGIN_.  Lengths and
 * offsets are in bytes.  Functions that return int return 0 or a negative
 * errno unless they say otherwise.  C99; no other library is needed.
 *
 * The interface only grows: structs get new members at their end, and each
 * tells its size, so a plugin that was built for a version works with all later
 * ones.
 */
#ifndef WEIR_PLUGIN_H
#define WEIR_PLUGIN_H

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the interface. */
#define WEIR_PLUGIN_ABI 1

#define WEIR_PLUGIN_EXPORT __attribute__((visibility("default")))
#define WEIR_PLUGIN_PRINTF(text, first) \
    __attribute__((__format__(__printf__, text, first)))

/* --- what a plugin meets --- */

/* The functions of the host; the rest of this file calls them. */
typedef struct WeirPluginHost WeirPluginHost;

/*
 * A disk that the plugin is under.  It lives from open to the end of close, and
 * may be used in any thread.
 */
typedef struct WeirPluginDisk {
    const WeirPluginHost *host;
    /* the rest is the host's */
} WeirPluginDisk;

/*
 * The right to do I/O and to wait.  It is given to a callback, and may be used
 * until that returns, by the callback and what it calls, and nowhere else: not
 * in other threads, nor within weir_plugin_run().
 */
typedef struct WeirPluginIo {
    const WeirPluginHost *host;
    WeirPluginDisk *disk;
    /* the rest is the host's */
} WeirPluginIo;

/* Values of the plugin's options; see weir_plugin_get_int() and the others. */
typedef struct WeirPluginValues {
    const WeirPluginHost *host;
    /* the rest is the host's */
} WeirPluginValues;

/* A request that the plugin has kept; see weir_plugin_hold(). */
typedef struct WeirPluginHeld WeirPluginHeld;

/* What the callback "statistics" fills; see weir_plugin_gauge(). */
typedef struct WeirPluginGauges WeirPluginGauges;

typedef struct WeirPluginTimer WeirPluginTimer;
typedef struct WeirPluginLock WeirPluginLock;

/* Which node a call is for. */
enum {
    WEIR_PLUGIN_NEXT = 0,       /* the node below: the disk itself */
    WEIR_PLUGIN_SIDECAR = 1,    /* a node of the plugin's own, if it has one */
};

/* Kinds of requests. */
enum {
    WEIR_PLUGIN_READ = 0,
    WEIR_PLUGIN_WRITE = 1,
    WEIR_PLUGIN_ZERO = 2,       /* write zeroes; there is no data */
    WEIR_PLUGIN_DISCARD = 3,    /* the content is not needed any more */
    WEIR_PLUGIN_FLUSH = 4,      /* what has been written becomes durable */
};

/* Flags of requests, and of weir_plugin_write() and weir_plugin_zero(). */
enum {
    WEIR_PLUGIN_FUA = 1 << 0,           /* durable before it is done */
    WEIR_PLUGIN_MAY_UNMAP = 1 << 1,     /* zeroes need not take up space */
    WEIR_PLUGIN_NO_FALLBACK = 1 << 2,   /* zeroes: only if that is fast;
                                           else -ENOTSUP */
    WEIR_PLUGIN_UNCHANGED = 1 << 3,     /* it is there already: a job writes
                                           what it has read */
};

/*
 * A request.  It is the host's, and gone when the callback returns.
 *
 * iov is @bytes long in all; it is empty unless the request is a read or a
 * write.  It is memory of the guest: what is to be written may change while the
 * plugin looks at it (copy it first if that matters), must not be changed by
 * the plugin (write other data from a buffer of its own), and what is read is
 * seen by the guest at once.
 */
typedef struct WeirPluginRequest {
    uint32_t struct_size;       /* as the host has it */
    uint32_t kind;              /* WEIR_PLUGIN_READ and so on */
    uint32_t flags;             /* WEIR_PLUGIN_FUA and so on */
    uint32_t iov_count;
    uint64_t offset;            /* 0 for a flush */
    uint64_t bytes;             /* 0 for a flush */
    const struct iovec *iov;
} WeirPluginRequest;

/*
 * Verdicts: what the callback of a request returns, or is given to
 * weir_plugin_resume().  A negative errno makes the request fail with it.
 */
enum {
    WEIR_PLUGIN_DONE = 0,       /* the plugin has done all that was asked for */
    WEIR_PLUGIN_PASS = 1,       /* the node below is to do it, as it is */
    WEIR_PLUGIN_HOLD = 2,       /* weir_plugin_hold() has kept it */
    WEIR_PLUGIN_CANNOT = 3,     /* the plugin is not able to do its work at
                                   present: the disk's option on-error says what
                                   happens, and an event tells of it */
};

/* What lies in a part of a disk. */
typedef struct WeirPluginStatus {
    uint64_t bytes;             /* for how long it is the same; at least 1 */
    uint32_t flags;             /* WEIR_PLUGIN_STATUS_ZERO or 0 */
    uint32_t reserved;
} WeirPluginStatus;

enum {
    WEIR_PLUGIN_STATUS_ZERO = 1 << 0,   /* it reads as zeroes */
};

/* --- what a plugin says of itself --- */

/* What it is for.  A disk has at most one filter of each but OTHER. */
enum {
    WEIR_PLUGIN_CLASS_OTHER = 0,
    WEIR_PLUGIN_CLASS_INSPECTION = 1,
    WEIR_PLUGIN_CLASS_QOS = 2,
    WEIR_PLUGIN_CLASS_COMPRESSION = 3,
    WEIR_PLUGIN_CLASS_ENCRYPTION = 4,
    WEIR_PLUGIN_CLASS_REPLICATION = 5,
    WEIR_PLUGIN_CLASS_CACHE = 6,
};

/* Capabilities. */
enum {
    /*
     * What its users read is not what the node below has: it is transformed, or
     * at another place.  Needs "read" and "write".
     */
    WEIR_PLUGIN_CHANGES_DATA = 1 << 0,
    /*
     * The node below may lack what has been written.  Needs "read", "write",
     * "flush" and "detach".  Without "snapshot_before", snapshots are refused.
     */
    WEIR_PLUGIN_HOLDS_DATA = 1 << 1,
    /*
     * Requests that go past it lose nothing: allows on-error=bypass.  Not
     * together with CHANGES_DATA or HOLDS_DATA.
     */
    WEIR_PLUGIN_MAY_BYPASS = 1 << 2,
    /*
     * "flush" is called when all writes that began before have ended, and those
     * that come meanwhile begin after it.
     */
    WEIR_PLUGIN_ORDERED_FLUSH = 1 << 3,
    /*
     * "write" and "zero" heed WEIR_PLUGIN_FUA.  Without this the flag does not
     * come; "flush" is called instead.
     */
    WEIR_PLUGIN_DURABLE_WRITES = 1 << 4,
    /* It does not work without a sidecar. */
    WEIR_PLUGIN_NEEDS_SIDECAR = 1 << 5,
    /* It uses a sidecar if it has one. */
    WEIR_PLUGIN_USES_SIDECAR = 1 << 6,
};

/* How many requests it is given at a time. */
enum {
    /*
     * One, whatever the disk.  A disk cannot have two of such a plugin on top
     * of each other.
     */
    WEIR_PLUGIN_SERIAL = 0,
    WEIR_PLUGIN_SERIAL_PER_DISK = 1,
    WEIR_PLUGIN_PARALLEL = 2,   /* all, from several threads */
};

enum {
    WEIR_PLUGIN_BOOL = 0,       /* on, off, true, false */
    WEIR_PLUGIN_INT = 1,        /* signed, 64 bits */
    WEIR_PLUGIN_SIZE = 2,       /* bytes, from 0 to INT64_MAX; K, M, G, T as
                                   suffix */
    WEIR_PLUGIN_STRING = 3,
    WEIR_PLUGIN_CHOICE = 4,     /* one of the words in "choices" */
};

enum {
    WEIR_PLUGIN_MUTABLE = 1 << 0,       /* while the disk is open */
    WEIR_PLUGIN_MANDATORY = 1 << 1,     /* has no default */
};

/* An option of the plugin.  The host checks values against it. */
typedef struct WeirPluginOption {
    const char *name;           /* a-z, 0-9 and "-"; begins with a letter */
    const char *help;           /* a line */
    uint32_t type;              /* WEIR_PLUGIN_BOOL and so on */
    uint32_t flags;             /* WEIR_PLUGIN_MUTABLE and so on */
    const char *default_value;  /* as text; NULL: off, 0 or "" */
    const char *unit;           /* of an integer; NULL: none */
    const char *choices;        /* of CHOICE: words with "," between; else
                                   NULL */
    int64_t min;                /* of INT and SIZE; with min == max == 0, all */
    int64_t max;
} WeirPluginOption;

/* What happens to snapshots of the disk. */
enum {
    WEIR_PLUGIN_SNAPSHOT_CREATE = 0,    /* of what the image below has now:
                                           within it, or by an overlay that
                                           comes below the plugin */
    WEIR_PLUGIN_SNAPSHOT_REVERT = 1,    /* the content becomes another one */
    WEIR_PLUGIN_SNAPSHOT_DELETE = 2,
    /*
     * The disk becomes the backing file of an overlay: it is not written to any
     * more, and others may read and copy it without the plugin.
     */
    WEIR_PLUGIN_SNAPSHOT_OVERLAY = 3,
};

/* What "event" tells. */
enum {
    WEIR_PLUGIN_EVENT_BYPASS_BEGIN = 0, /* requests go past the plugin */
    WEIR_PLUGIN_EVENT_BYPASS_END = 1,
    WEIR_PLUGIN_EVENT_OVERDUE = 2,      /* it holds a request for too long */
};

/* The callback of a request.  Returns a verdict. */
typedef int WeirPluginRequestFn(void *handle, WeirPluginIo *io,
                                WeirPluginRequest *request);

/*
 * A plugin.  All of it is constant.  Callbacks but "open" are optional; where
 * there is none, nothing is asked, and requests pass by the plugin with all
 * offloads, with these exceptions, which keep it from missing something:
 *
 *   has      lacks          then
 *   write    zero           zeroes come as writes
 *   write    discard        discards are ignored
 *   read     block_status   all counts as data
 *   read or write           copies are not offloaded
 *
 * A callback that returns WEIR_PLUGIN_PASS (weir_plugin_pass() does no more)
 * keeps the offload.
 *
 * Each callback says where it runs:
 *
 *   coroutine     has an io and may wait.  Calls of one disk come one at a time
 *                 or not, see "concurrency"
 *   main thread   no io; must not wait.  At any time, beside the others
 *
 * handle is what "open" has set.
 */
typedef struct WeirPlugin {
    uint32_t abi;               /* WEIR_PLUGIN_ABI */
    uint32_t struct_size;       /* sizeof(WeirPlugin) */
    uint32_t option_size;       /* sizeof(WeirPluginOption) */
    uint32_t option_count;
    const WeirPluginOption *options;    /* NULL: there are none */

    const char *name;           /* that of the file, without ".so" */
    const char *version;
    const char *description;    /* a line */
    uint32_t plugin_class;      /* WEIR_PLUGIN_CLASS_OTHER and so on */
    uint32_t capabilities;      /* WEIR_PLUGIN_CHANGES_DATA and so on */
    uint32_t concurrency;       /* WEIR_PLUGIN_SERIAL and so on */
    /*
     * Requests are multiples of it, and so is the disk: a power of two, 512 to
     * 65536, or 0 for any.  The host reads and writes what is missing; what is
     * missing of a discard makes it be ignored.
     */
    uint32_t alignment;

    /* --- life --- */

    /*
     * The file was loaded; once per process.  Main thread.  What it returns
     * other than 0 keeps the plugin from being used.
     */
    int (*load)(const WeirPluginHost *host);
    /*
     * The file is going to be unloaded: no disk is open.  Main thread.  Threads
     * that the plugin has started end here at the latest.
     */
    void (*unload)(void);

    /*
     * Whether values that fit the table fit each other.  Main thread; no disk
     * need be open.  Returns 0, or a negative errno with a message of at most
     * @size bytes that names the option and says why.
     */
    int (*check_options)(const WeirPluginValues *values, char *message,
                         size_t size);

    /*
     * A disk is put under the plugin.  Main thread.  Allocates what the plugin
     * needs; there is no I/O yet.  Returns 0 with *handle set, or a negative
     * errno, best with weir_plugin_error(); nothing else is called for this
     * disk then.
     */
    int (*open)(WeirPluginDisk *disk, void **handle);

    /*
     * Before the first request.  Coroutine.  The sidecar may be written to; the
     * node below may only be read yet, since its users are not here so far.
     * When a machine arrives by migration this comes later than open, or never.
     * When it fails, close follows.
     */
    int (*prepare)(void *handle, WeirPluginIo *io);

    /*
     * The disk goes away: no request, task or timer is under way.  Coroutine.
     * Frees the handle.  Requests that are held have expired; those that are
     * not resumed here are freed afterwards.  The sidecar may be written to,
     * the node below not: a flush has come before.
     */
    void (*close)(void *handle, WeirPluginIo *io);

    /* --- requests: coroutine --- */

    WeirPluginRequestFn *read;
    WeirPluginRequestFn *write;
    WeirPluginRequestFn *zero;
    WeirPluginRequestFn *discard;
    WeirPluginRequestFn *flush;

    /*
     * What lies at offset, for bytes at most.  Coroutine.  Returns
     * WEIR_PLUGIN_DONE with *status set, WEIR_PLUGIN_PASS for what the node
     * below says, or a negative errno.
     */
    int (*block_status)(void *handle, WeirPluginIo *io, uint64_t offset,
                        uint64_t bytes, WeirPluginStatus *status);

    /* --- changes --- */

    /*
     * The disk is going to be so long; the node below is resized next, and
     * then "resized" tells the length that it has.  So it is when a format that
     * is above writes behind the end.  Coroutine.  Returns 0, or a negative
     * errno to refuse.  Held requests that are behind the end when they are
     * resumed fail.
     */
    int (*resize)(void *handle, WeirPluginIo *io, uint64_t bytes);
    void (*resized)(void *handle, WeirPluginIo *io, uint64_t bytes);

    /*
     * Somebody waits until no request is under way, and lets none begin until
     * the end.  Main thread.  Held requests are to be resumed soon: they are
     * what is waited for.  Tasks that do I/O pause by themselves.  Begins are
     * not nested.
     */
    void (*drain_begin)(void *handle);
    void (*drain_end)(void *handle);

    /*
     * A snapshot is going to be made, and the like; name is that of the
     * snapshot, or NULL.  Coroutine; drained.  What is held goes down here.  A
     * negative errno refuses it.  Afterwards, result is 0 or the errno with
     * which it failed.
     */
    int (*snapshot_before)(void *handle, WeirPluginIo *io, uint32_t what,
                           const char *name);
    void (*snapshot_after)(void *handle, WeirPluginIo *io, uint32_t what,
                           const char *name, int result);

    /*
     * The disk is going to be used by somebody else (at the other end of a
     * migration): all that is held goes down, and there is no I/O until
     * "activate".  Coroutine; drained.  Tasks have ended and timers are not set
     * any more; both nodes are flushed afterwards.  A negative errno keeps it
     * here: what is to go on is begun again before.
     * activate: it is ours again, with whatever content.  No request comes
     * before it has returned.
     */
    int (*inactivate)(void *handle, WeirPluginIo *io);
    int (*activate)(void *handle, WeirPluginIo *io);

    /*
     * The plugin is going to be taken out, and the disk to go on without it:
     * bring down what the node below lacks, and hold nothing back from then on:
     * requests still come.  Coroutine.  A negative errno keeps it; not if force
     * is set: then what cannot be brought down is lost.
     */
    int (*detach)(void *handle, WeirPluginIo *io, int force);

    /*
     * Options changed; all that changed are WEIR_PLUGIN_MUTABLE and were
     * checked.  Main thread.  values are those of the disk from now on.
     */
    void (*options_changed)(void *handle, const WeirPluginValues *values);

    /* --- reports --- */

    /* Call weir_plugin_gauge() for each figure.  Main thread. */
    void (*statistics)(void *handle, WeirPluginGauges *gauges);

    /* Something happened: WEIR_PLUGIN_EVENT_*.  Any thread; must not wait. */
    void (*event)(void *handle, uint32_t event);
} WeirPlugin;

#ifdef __cplusplus
#define WEIR_PLUGIN_C extern "C"
#else
#define WEIR_PLUGIN_C
#endif

/*
 * Register a static WeirPlugin; once per shared object.  The note lets programs
 * tell what the file is without running anything in it.
 */
#define WEIR_PLUGIN_REGISTER(plugin)                                        \
    WEIR_PLUGIN_C WEIR_PLUGIN_EXPORT                                        \
    const WeirPlugin *weir_plugin_entry(void);                              \
    const WeirPlugin *weir_plugin_entry(void)                               \
    {                                                                       \
        return &(plugin);                                                   \
    }                                                                       \
    __attribute__((used, section(".note.weir.plugin"), aligned(4)))         \
    static const struct {                                                   \
        uint32_t name_bytes, desc_bytes, type;                              \
        char name[8];                                                       \
        uint32_t abi, struct_size;                                          \
    } weir_plugin_note = {                                                  \
        5, 8, 1, "Weir", WEIR_PLUGIN_ABI, sizeof(WeirPlugin)                \
    }

/* --- what the host has for plugins --- */

/* State of a disk, as "query-weir" tells it. */
enum {
    WEIR_PLUGIN_STATE_OK = 0,
    WEIR_PLUGIN_STATE_DEGRADED = 1,     /* reduced service */
    WEIR_PLUGIN_STATE_FAILED = 2,       /* none */
};

enum {
    WEIR_PLUGIN_LOG_ERROR = 0,
    WEIR_PLUGIN_LOG_WARNING = 1,
    WEIR_PLUGIN_LOG_INFO = 2,
};

/* Call the functions below instead of these; they say what each does. */
struct WeirPluginHost {
    uint32_t abi;
    uint32_t struct_size;

    int (*length)(WeirPluginIo *io, uint32_t node, uint64_t *bytes);
    int (*readv)(WeirPluginIo *io, uint32_t node, uint64_t offset,
                 const struct iovec *iov, uint32_t iov_count);
    int (*writev)(WeirPluginIo *io, uint32_t node, uint64_t offset,
                  const struct iovec *iov, uint32_t iov_count,
                  uint32_t flags);
    int (*zero)(WeirPluginIo *io, uint32_t node, uint64_t offset,
                uint64_t bytes, uint32_t flags);
    int (*discard)(WeirPluginIo *io, uint32_t node, uint64_t offset,
                   uint64_t bytes);
    int (*flush)(WeirPluginIo *io, uint32_t node);
    int (*block_status)(WeirPluginIo *io, uint32_t node, uint64_t offset,
                        uint64_t bytes, WeirPluginStatus *status);
    int (*resize)(WeirPluginIo *io, uint32_t node, uint64_t bytes);
    int (*forward)(WeirPluginIo *io, WeirPluginRequest *request);
    int (*run)(WeirPluginIo *io, int (*fn)(void *arg), void *arg);
    int (*sleep)(WeirPluginIo *io, uint64_t ns);
    void (*lock)(WeirPluginIo *io, WeirPluginLock *lock);
    void (*unlock)(WeirPluginIo *io, WeirPluginLock *lock);

    WeirPluginHeld *(*hold)(WeirPluginIo *io, WeirPluginRequest *request);
    const WeirPluginRequest *(*held_request)(const WeirPluginHeld *held);
    int (*resume)(WeirPluginHeld *held, int verdict);

    int (*spawn)(WeirPluginDisk *disk, void (*fn)(void *arg, WeirPluginIo *io),
                 void *arg);
    WeirPluginTimer *(*timer_new)(WeirPluginDisk *disk,
                                  void (*fn)(void *arg, WeirPluginIo *io),
                                  void *arg);
    void (*timer_set)(WeirPluginTimer *timer, uint64_t in_ns);
    void (*timer_cancel)(WeirPluginTimer *timer);
    void (*timer_free)(WeirPluginTimer *timer);
    WeirPluginLock *(*lock_new)(WeirPluginDisk *disk);
    void (*lock_free)(WeirPluginLock *lock);
    void *(*buffer_take)(WeirPluginDisk *disk, size_t bytes);
    void (*buffer_give)(WeirPluginDisk *disk, void *buffer);

    const WeirPluginValues *(*values)(WeirPluginDisk *disk);
    int64_t (*get_int)(const WeirPluginValues *values, const char *name);
    const char *(*get_string)(const WeirPluginValues *values,
                              const char *name);
    const char *(*disk_name)(WeirPluginDisk *disk);
    int (*is_read_only)(WeirPluginDisk *disk);
    int (*has_sidecar)(WeirPluginDisk *disk);
    uint64_t (*now_ns)(void);

    void (*error)(WeirPluginDisk *disk, const char *message);
    void (*log)(WeirPluginDisk *disk, uint32_t level, const char *message);
    void (*set_state)(WeirPluginDisk *disk, uint32_t state,
                      const char *reason);
    void (*report)(WeirPluginDisk *disk, const char *name,
                   const char *message);
    void (*gauge)(WeirPluginGauges *gauges, const char *name,
                  const char *unit, uint64_t value, int counter);
};

/* --- I/O: coroutine --- */

/*
 * All of these are checked: what is outside of the node fails with -EIO, a
 * node that there is not with -ENODEV, a write to a read-only one with -EACCES;
 * with -EINVAL memory that is NULL, or of more than 1024 pieces, and an io in
 * another place than the callback that it was given to.
 * While a request of the disk is expired (see weir_plugin_hold()), writes to
 * the node below fail with -ECANCELED.  In a task, they wait for the end of a
 * drained section.
 */

/* How long the node is. */
static inline int weir_plugin_length(WeirPluginIo *io, uint32_t node,
                                     uint64_t *bytes)
{
    return io->host->length(io, node, bytes);
}

static inline int weir_plugin_readv(WeirPluginIo *io, uint32_t node,
                                    uint64_t offset, const struct iovec *iov,
                                    uint32_t iov_count)
{
    return io->host->readv(io, node, offset, iov, iov_count);
}

static inline int weir_plugin_read(WeirPluginIo *io, uint32_t node,
                                   uint64_t offset, uint64_t bytes, void *buf)
{
    struct iovec iov;

    iov.iov_base = buf;
    iov.iov_len = bytes;
    return io->host->readv(io, node, offset, &iov, 1);
}

/* flags: WEIR_PLUGIN_FUA or 0. */
static inline int weir_plugin_writev(WeirPluginIo *io, uint32_t node,
                                     uint64_t offset, const struct iovec *iov,
                                     uint32_t iov_count, uint32_t flags)
{
    return io->host->writev(io, node, offset, iov, iov_count, flags);
}

static inline int weir_plugin_write(WeirPluginIo *io, uint32_t node,
                                    uint64_t offset, uint64_t bytes,
                                    const void *buf, uint32_t flags)
{
    struct iovec iov;

    iov.iov_base = (void *)buf;
    iov.iov_len = bytes;
    return io->host->writev(io, node, offset, &iov, 1, flags);
}

/* flags: WEIR_PLUGIN_FUA, _MAY_UNMAP, _NO_FALLBACK. */
static inline int weir_plugin_zero(WeirPluginIo *io, uint32_t node,
                                   uint64_t offset, uint64_t bytes,
                                   uint32_t flags)
{
    return io->host->zero(io, node, offset, bytes, flags);
}

static inline int weir_plugin_discard(WeirPluginIo *io, uint32_t node,
                                      uint64_t offset, uint64_t bytes)
{
    return io->host->discard(io, node, offset, bytes);
}

static inline int weir_plugin_flush(WeirPluginIo *io, uint32_t node)
{
    return io->host->flush(io, node);
}

static inline int weir_plugin_block_status(WeirPluginIo *io, uint32_t node,
                                           uint64_t offset, uint64_t bytes,
                                           WeirPluginStatus *status)
{
    return io->host->block_status(io, node, offset, bytes, status);
}

/* Make the sidecar so long; the node below is resized by its users only. */
static inline int weir_plugin_resize(WeirPluginIo *io, uint32_t node,
                                     uint64_t bytes)
{
    return io->host->resize(io, node, bytes);
}

/*
 * Have the node below do this request now, as it is, and wait for the result.
 * The plugin then returns WEIR_PLUGIN_DONE or the errno.
 */
static inline int weir_plugin_forward(WeirPluginIo *io,
                                      WeirPluginRequest *request)
{
    return io->host->forward(io, request);
}

/*
 * Run fn in a thread of a pool and wait for it.  fn must not use an io.
 * Returns what fn does.
 */
static inline int weir_plugin_run(WeirPluginIo *io, int (*fn)(void *arg),
                                  void *arg)
{
    return io->host->run(io, fn, arg);
}

/*
 * Wait.  Returns 0, or -ECANCELED before the time is over: the disk is being
 * closed or handed over.  A task that goes on for long ends then.
 */
static inline int weir_plugin_sleep(WeirPluginIo *io, uint64_t ns)
{
    return io->host->sleep(io, ns);
}

/*
 * A lock that may be held over I/O, unlike one of pthread.  It is for requests
 * and tasks of one disk; who has it must not take it again.
 */
static inline WeirPluginLock *weir_plugin_lock_new(WeirPluginDisk *disk)
{
    return disk->host->lock_new(disk);
}

static inline void weir_plugin_lock(WeirPluginIo *io, WeirPluginLock *lock)
{
    io->host->lock(io, lock);
}

static inline void weir_plugin_unlock(WeirPluginIo *io, WeirPluginLock *lock)
{
    io->host->unlock(io, lock);
}

static inline void weir_plugin_lock_free(WeirPluginDisk *disk,
                                         WeirPluginLock *lock)
{
    disk->host->lock_free(lock);
}

/* --- requests --- */

/* For WeirPlugin.zero and the like: leave it to the node below. */
static inline int weir_plugin_pass(void *handle, WeirPluginIo *io,
                                   WeirPluginRequest *request)
{
    (void)handle;
    (void)io;
    (void)request;
    return WEIR_PLUGIN_PASS;
}

/* Copy what is to be written, from at on: so many bytes, or what there is. */
static inline void weir_plugin_get_data(const WeirPluginRequest *request,
                                        uint64_t at, void *buf, uint64_t bytes)
{
    char *to = (char *)buf;
    uint32_t i;

    for (i = 0; i < request->iov_count && bytes > 0; i++) {
        uint64_t length = request->iov[i].iov_len;

        if (at >= length) {
            at -= length;
            continue;
        }
        length = length - at < bytes ? length - at : bytes;
        memcpy(to, (const char *)request->iov[i].iov_base + at, length);
        to += length;
        bytes -= length;
        at = 0;
    }
}

/* Copy into what is read. */
static inline void weir_plugin_put_data(const WeirPluginRequest *request,
                                        uint64_t at, const void *buf,
                                        uint64_t bytes)
{
    const char *from = (const char *)buf;
    uint32_t i;

    for (i = 0; i < request->iov_count && bytes > 0; i++) {
        uint64_t length = request->iov[i].iov_len;

        if (at >= length) {
            at -= length;
            continue;
        }
        length = length - at < bytes ? length - at : bytes;
        memcpy((char *)request->iov[i].iov_base + at, from, length);
        from += length;
        bytes -= length;
        at = 0;
    }
}

/*
 * Keep a request over the end of its callback, which returns WEIR_PLUGIN_HOLD
 * then.  The plugin gets a copy of the request, with memory of its own for the
 * data (up to 1 MiB: longer requests come in parts), and gives it back with
 * weir_plugin_resume().  Returns NULL if there is no memory.
 *
 * A request that is held for longer than the disk's option "deadline" expires
 * if the option "on-error" is "fail" or "bypass", or in a drained section, or
 * when the plugin is taken out by force: its user gets an answer without the
 * plugin.  The copy stays the plugin's until it is resumed all the same; until
 * then the plugin is given no other requests of the disk, and cannot write to
 * the node below, so nothing that is late overwrites what is new.
 */
static inline WeirPluginHeld *weir_plugin_hold(WeirPluginIo *io,
                                               WeirPluginRequest *request)
{
    return io->host->hold(io, request);
}

/* The copy; its iov may be written to, if it is a read. */
static inline const WeirPluginRequest *weir_plugin_held_request(
    const WeirPluginDisk *disk, const WeirPluginHeld *held)
{
    return disk->host->held_request(held);
}

/*
 * Give a held request back, with a verdict other than WEIR_PLUGIN_HOLD.  With
 * WEIR_PLUGIN_PASS, the copy is what is written.  Any thread; does not wait.
 * held is gone then.  Returns 0, or -ECANCELED: it had expired.
 */
static inline int weir_plugin_resume(WeirPluginDisk *disk,
                                     WeirPluginHeld *held, int verdict)
{
    return disk->host->resume(held, verdict);
}

/* --- work in the background: any thread --- */

/*
 * Run fn as a task: a coroutine that does not belong to a request.  Requests go
 * on beside it, whatever "concurrency" is.  The disk is not closed before it
 * has ended.
 */
static inline int weir_plugin_spawn(WeirPluginDisk *disk,
                                    void (*fn)(void *arg, WeirPluginIo *io),
                                    void *arg)
{
    return disk->host->spawn(disk, fn, arg);
}

/*
 * A timer that runs fn as a task, once for each time it is set.  NULL: no
 * memory.  Not in "close"; timers that are left are freed after it.
 */
static inline WeirPluginTimer *weir_plugin_timer_new(
    WeirPluginDisk *disk, void (*fn)(void *arg, WeirPluginIo *io), void *arg)
{
    return disk->host->timer_new(disk, fn, arg);
}

/* Run it in so many nanoseconds, in place of when it was set before. */
static inline void weir_plugin_timer_set(WeirPluginDisk *disk,
                                         WeirPluginTimer *timer,
                                         uint64_t in_ns)
{
    disk->host->timer_set(timer, in_ns);
}

/* Do not run it; fn may be at work already. */
static inline void weir_plugin_timer_cancel(WeirPluginDisk *disk,
                                            WeirPluginTimer *timer)
{
    disk->host->timer_cancel(timer);
}

static inline void weir_plugin_timer_free(WeirPluginDisk *disk,
                                          WeirPluginTimer *timer)
{
    disk->host->timer_free(timer);
}

/* --- memory: any thread --- */

/*
 * A buffer of at least so many bytes, aligned to 4096, best for I/O.  It comes
 * from a pool: its content is anything.  NULL: there is no memory.
 */
static inline void *weir_plugin_buffer_take(WeirPluginDisk *disk, size_t bytes)
{
    return disk->host->buffer_take(disk, bytes);
}

/* NULL is fine. */
static inline void weir_plugin_buffer_give(WeirPluginDisk *disk, void *buffer)
{
    disk->host->buffer_give(disk, buffer);
}

/* --- the disk: any thread --- */

/*
 * Its options.  They are gone when "options_changed" is called with others:
 * look at them there and in "open", and keep what is needed.
 */
static inline const WeirPluginValues *weir_plugin_values(WeirPluginDisk *disk)
{
    return disk->host->values(disk);
}

/* An option of type INT, SIZE or BOOL (0 or 1); 0 if there is no such. */
static inline int64_t weir_plugin_get_int(const WeirPluginValues *values,
                                          const char *name)
{
    return values->host->get_int(values, name);
}

/* One of type STRING or CHOICE; "" if there is no such. */
static inline const char *weir_plugin_get_string(
    const WeirPluginValues *values, const char *name)
{
    return values->host->get_string(values, name);
}

/* Its node name. */
static inline const char *weir_plugin_disk_name(WeirPluginDisk *disk)
{
    return disk->host->disk_name(disk);
}

static inline int weir_plugin_is_read_only(WeirPluginDisk *disk)
{
    return disk->host->is_read_only(disk);
}

static inline int weir_plugin_has_sidecar(WeirPluginDisk *disk)
{
    return disk->host->has_sidecar(disk);
}

/* A clock that only goes forward. */
static inline uint64_t weir_plugin_now_ns(const WeirPluginDisk *disk)
{
    return disk->host->now_ns();
}

/* --- reports: any thread --- */

/* Formatted texts are cut after 511 bytes. */

/* Why a callback is going to return an errno to a user who is at hand. */
static inline void WEIR_PLUGIN_PRINTF(2, 3)
weir_plugin_error(WeirPluginDisk *disk, const char *format, ...)
{
    char message[512];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    disk->host->error(disk, message);
}

/* Into the host's log.  level: WEIR_PLUGIN_LOG_ERROR and so on. */
static inline void WEIR_PLUGIN_PRINTF(3, 4)
weir_plugin_log(WeirPluginDisk *disk, uint32_t level, const char *format, ...)
{
    char message[512];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    disk->host->log(disk, level, message);
}

/*
 * The state that "query-weir" tells; a change is an event WEIR_STATE.
 * reason: why it is not OK; copied.
 */
static inline void weir_plugin_set_state(WeirPluginDisk *disk, uint32_t state,
                                         const char *reason)
{
    disk->host->set_state(disk, state, reason);
}

/* Emit an event WEIR_PLUGIN_EVENT: a word for programs, a line for people. */
static inline void weir_plugin_report(WeirPluginDisk *disk, const char *name,
                                      const char *message)
{
    disk->host->report(disk, name, message);
}

/*
 * In "statistics": a figure.  unit: "bytes", "ns" and the like, or "".
 * counter: whether it only grows.
 */
static inline void weir_plugin_gauge(WeirPluginDisk *disk,
                                     WeirPluginGauges *gauges,
                                     const char *name, const char *unit,
                                     uint64_t value, int counter)
{
    disk->host->gauge(gauges, name, unit, value, counter);
}

#ifdef __cplusplus
}
#endif

#endif
