/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is to go into a packet, as it is or compressed. A long record is cut
 * into pieces for that, each of which is compressed if it gets shorter; what is
 * not stays in as few records as before.
 */
#include "replication/source-int.h"

#include <stdlib.h>
#include <string.h>

void weir_source_pack_free(WeirSourcePack *pack)
{
    free(pack->records);
    free(pack->data);
    free(pack->buf);
}

/* How many records there may be, and room for what is compressed. */
static int make_room(WeirSourcePack *pack, bool compress)
{
    uint64_t records = 0, bytes = 0;

    for (uint32_t i = 0; i < pack->entry_count; i++) {
        const WeirLogRecord *r = &pack->entries[i].record;

        records++;
        if (r->op == WEIR_LOG_WRITE) {
            records += r->bytes / WEIR_COMPRESS_BYTES_MAX;
            bytes += weir_log_data_room(r->bytes);
        }
    }
    pack->records = malloc((records + 1) * sizeof(*pack->records));
    pack->data = malloc((records + 1) * sizeof(*pack->data));
    pack->buf = compress ? malloc(bytes + 1) : NULL;
    return pack->records && pack->data && (pack->buf || !compress) ? 0
                                                                   : -ENOMEM;
}

static void add(WeirSourcePack *pack, const WeirLogRecord *record,
                const uint8_t *data)
{
    pack->records[pack->count] = *record;
    pack->data[pack->count++] = data;
    pack->data_bytes += weir_log_data_room(weir_log_data_bytes(record));
}

static WeirLogRecord part_of(const WeirEpochEntry *entry, uint64_t at,
                             uint64_t bytes)
{
    WeirLogRecord r = entry->record;

    r.offset += at;
    r.bytes = bytes;
    if (bytes < entry->record.bytes) {
        r.crc = weir_log_data_crc(entry->piece.data + at, bytes);
    }
    return r;
}

static void add_plain(WeirSourcePack *pack, const WeirEpochEntry *entry,
                      uint64_t at, uint64_t bytes)
{
    if (bytes > 0) {
        WeirLogRecord r = part_of(entry, at, bytes);

        add(pack, &r, entry->piece.data + at);
    }
}

static void compress_entry(WeirSourcePack *pack, const WeirEpochEntry *entry)
{
    uint64_t bytes = entry->record.bytes, plain = 0;

    for (uint64_t at = 0, n; at < bytes; at += n) {
        uint8_t *to = pack->buf + pack->used;
        WeirLogRecord r;
        uint64_t room;

        n = bytes - at < WEIR_COMPRESS_BYTES_MAX ? bytes - at
                                                 : WEIR_COMPRESS_BYTES_MAX;
        r = part_of(entry, at, n);
        room = weir_compress(pack->compressor, &r, entry->piece.data + at, to);
        if (room > 0) {
            add_plain(pack, entry, plain, at - plain);
            add(pack, &r, to);
            pack->used += room;
            plain = at + n;
        }
    }
    add_plain(pack, entry, plain, bytes - plain);
}

/* arg: the WeirSourcePack. Calls nobody. */
static void fill(void *arg)
{
    WeirSourcePack *pack = arg;

    for (uint32_t i = 0; i < pack->entry_count; i++) {
        const WeirEpochEntry *entry = &pack->entries[i];

        if (pack->compressor && entry->record.op == WEIR_LOG_WRITE) {
            compress_entry(pack, entry);
        } else {
            add(pack, &entry->record, entry->piece.data);
        }
    }
}

/* Whose entries are sent stay as they are, whatever happens meanwhile. */
static void compute(WeirSource *s, WeirSourcePack *pack)
{
    pthread_mutex_unlock(&s->lock);
    if (s->host->compute) {
        s->host->compute(s->opaque, fill, pack);
    } else {
        fill(pack);
    }
    pthread_mutex_lock(&s->lock);
}

int weir_source_pack(WeirSource *s, const WeirEpochEntry *entries,
                     uint32_t count, WeirSourcePack *pack)
{
    int ret;

    memset(pack, 0, sizeof(*pack));
    pack->entries = entries;
    pack->entry_count = count;
    pack->compressor = s->compressor;
    ret = make_room(pack, s->compressor != NULL);
    if (ret < 0) {
        weir_source_pack_free(pack);
        return ret;
    }
    if (s->compressor) {
        compute(s, pack);
    } else {
        fill(pack);
    }
    return 0;
}
