/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/epoch.h"

#include <errno.h>
#include <stdlib.h>

#define ENTRIES_AT_FIRST 256
#define PART_RECORDS_MAX 500            /* with padding, less than IOV_MAX */

WeirEpoch *weir_epoch_new(void)
{
    return calloc(1, sizeof(WeirEpoch));
}

void weir_epoch_free(WeirEpoch *epoch, WeirMemory *memory)
{
    if (!epoch) {
        return;
    }
    for (uint32_t i = 0; i < epoch->count; i++) {
        if (weir_log_data_bytes(&epoch->entries[i].record) > 0) {
            weir_memory_give(memory, &epoch->entries[i].piece);
        }
    }
    free(epoch->entries);
    free(epoch);
}

/* Twice as much each time: rare, and nothing when an epoch is usual. */
int weir_epoch_reserve(WeirEpoch *epoch, uint32_t entries)
{
    uint32_t room = epoch->room ? epoch->room : ENTRIES_AT_FIRST;
    WeirEpochEntry *more;

    if (entries <= epoch->room - epoch->count) {
        return 0;
    }
    while (room - epoch->count < entries) {
        room *= 2;
    }
    more = realloc(epoch->entries, room * sizeof(*more));
    if (!more) {
        return -ENOMEM;
    }
    epoch->entries = more;
    epoch->room = room;
    return 0;
}

void weir_epoch_trim(WeirEpoch *epoch)
{
    WeirEpochEntry *less;

    if (epoch->count == 0 || epoch->count > epoch->room / 2) {
        return;
    }
    less = realloc(epoch->entries, epoch->count * sizeof(*less));
    if (less) {
        epoch->entries = less;
        epoch->room = epoch->count;
    }
}

void weir_epoch_add(WeirEpoch *epoch, const WeirLogRecord *record,
                    const WeirPiece *piece)
{
    WeirEpochEntry *entry = &epoch->entries[epoch->count++];

    entry->record = *record;
    if (piece) {
        entry->piece = *piece;
    }
    epoch->bytes += weir_log_data_bytes(record);
}

WeirEpochPart weir_epoch_part(const WeirEpoch *epoch, uint32_t first,
                              uint64_t packet_bytes)
{
    WeirEpochPart part = { .first = first };

    while (first + part.count < epoch->count &&
           part.count < PART_RECORDS_MAX) {
        const WeirEpochEntry *entry = &epoch->entries[first + part.count];
        uint64_t room =
            weir_log_data_room(weir_log_data_bytes(&entry->record));

        if (part.count > 0 && part.data_bytes + room > packet_bytes) {
            break;
        }
        part.data_bytes += room;
        part.count++;
    }
    part.ends = first + part.count == epoch->count;
    return part;
}
