/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-commit: do what a database does to a file system, tell of each
 * transaction when it is safe, and check after a crash that it is.
 *
 * Transactions are numbered and done one after the other. What number N does
 * follows from N:
 *
 *   N % 4     done with
 *   0, 1      a record written in place, N % SLOTS: fdatasync of the file
 *   2         a state file replaced, one of STATES: fsync, rename, fsync of
 *             the folder
 *   3         a new file made: fsync of it and of the folder; the one that is
 *             KEPT older is removed
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ITEM_BYTES 1024
#define ITEM_WORDS (ITEM_BYTES / 8)
#define ITEM_MAGIC UINT64_C(0x74696d6d6f632d77)
#define SLOTS 256                       /* a multiple of 4 */
#define STATES 8
#define KEPT (32 * 4)

/* magic, number, checksum of all others, payload that follows from number */
typedef struct Item {
    uint64_t word[ITEM_WORDS];
} Item;

enum { WORD_MAGIC, WORD_NUMBER, WORD_CHECKSUM, WORD_PAYLOAD };

/* What was found of the transactions. */
typedef struct Check {
    int dir;
    uint64_t told;                      /* it is known to be safe */
    uint64_t newest;                    /* that is there */
    uint64_t safe;                      /* all up to here have to be there */
    unsigned checked;
    unsigned bad;
} Check;

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "weir-commit: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* --- items --- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t checksum(const Item *item)
{
    uint64_t sum = 0;

    for (int i = 0; i < ITEM_WORDS; i++) {
        sum = i == WORD_CHECKSUM ? sum : mix(sum + item->word[i] + 1);
    }
    return sum;
}

static void item_fill(Item *item, uint64_t number)
{
    item->word[WORD_MAGIC] = ITEM_MAGIC;
    item->word[WORD_NUMBER] = number;
    for (int i = WORD_PAYLOAD; i < ITEM_WORDS; i++) {
        item->word[i] = mix(number * ITEM_WORDS + (uint64_t)i);
    }
    item->word[WORD_CHECKSUM] = checksum(item);
}

/* The number of the transaction that wrote it; 0: it is not whole. */
static uint64_t item_number(const Item *item)
{
    if (item->word[WORD_MAGIC] != ITEM_MAGIC ||
        item->word[WORD_CHECKSUM] != checksum(item)) {
        return 0;
    }
    return item->word[WORD_NUMBER];
}

static void write_item(int fd, uint64_t number, off_t offset)
{
    Item item;

    item_fill(&item, number);
    if (pwrite(fd, &item, sizeof(item), offset) != sizeof(item)) {
        die("write");
    }
}

/* Its number; 0 when it is not whole. */
static uint64_t read_item(int fd, off_t offset)
{
    Item item;
    ssize_t n = pread(fd, &item, sizeof(item), offset);

    if (n < 0) {
        die("read");
    }
    return n == sizeof(item) ? item_number(&item) : 0;
}

/* Returns the number, 0 when it is not whole, -1 without such a file. */
static int64_t read_item_file(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    int64_t number;

    if (fd < 0) {
        if (errno != ENOENT) {
            die(name);
        }
        return -1;
    }
    number = (int64_t)read_item(fd, 0);
    close(fd);
    return number;
}

static void write_item_file(int dir, const char *name, uint64_t number)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0) {
        die(name);
    }
    write_item(fd, number, 0);
    if (fsync(fd) < 0) {
        die("fsync");
    }
    close(fd);
}

/* --- transactions --- */

static void state_name(char *name, size_t size, uint64_t number)
{
    snprintf(name, size, "state%u", (unsigned)(number / 4 % STATES));
}

static void file_name(char *name, size_t size, uint64_t number)
{
    snprintf(name, size, "file%" PRIu64, number);
}

static off_t slot_offset(uint64_t number)
{
    return (off_t)(number % SLOTS * ITEM_BYTES);
}

static void sync_dir(int dir)
{
    if (fsync(dir) < 0) {
        die("fsync of the folder");
    }
}

static void replace_state(int dir, uint64_t number)
{
    char name[32];

    state_name(name, sizeof(name), number);
    write_item_file(dir, "new", number);
    if (renameat(dir, "new", dir, name) < 0) {
        die(name);
    }
    sync_dir(dir);
}

static void make_file(int dir, uint64_t number)
{
    char name[32];

    file_name(name, sizeof(name), number);
    write_item_file(dir, name, number);
    sync_dir(dir);
    if (number > KEPT) {
        file_name(name, sizeof(name), number - KEPT);
        if (unlinkat(dir, name, 0) < 0 && errno != ENOENT) {
            die(name);
        }
    }
}

static void transaction(int dir, int records, uint64_t number)
{
    switch (number % 4) {
    case 2:
        replace_state(dir, number);
        break;
    case 3:
        make_file(dir, number);
        break;
    default:
        write_item(records, number, slot_offset(number));
        if (fdatasync(records) < 0) {
            die("fdatasync");
        }
    }
}

/* One write, which a console does not mix with others. */
static void tell(const char *name, uint64_t number)
{
    char line[128];
    int n = snprintf(line, sizeof(line), "committed %s %" PRIu64 ".\n", name,
                     number);

    if (write(STDOUT_FILENO, line, (size_t)n) != n) {
        die("stdout");
    }
}

/* Room for all records, so that later writes are in place. */
static int open_records(int dir)
{
    static const char zeroes[SLOTS * ITEM_BYTES];
    int fd = openat(dir, "records", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        die("records");
    }
    if ((size_t)st.st_size < sizeof(zeroes) &&
        (pwrite(fd, zeroes, sizeof(zeroes), 0) != sizeof(zeroes) ||
         fsync(fd) < 0)) {
        die("records");
    }
    sync_dir(dir);
    return fd;
}

/* --- check --- */

static void complain(Check *c, uint64_t number, const char *what,
                     int64_t found)
{
    c->bad++;
    printf("transaction %" PRIu64 ": %s, found %" PRId64 "; safe are %" PRIu64
           "\n", number, what, found, c->safe);
}

/* The newest one up to `limit` that has the given remainder; 0: none. */
static uint64_t newest_with(uint64_t limit, uint64_t divisor, uint64_t rest)
{
    return limit < rest ? 0 : limit - (limit - rest) % divisor;
}

static void see(Check *c, int64_t number)
{
    if (number > 0 && (uint64_t)number > c->newest) {
        c->newest = (uint64_t)number;
    }
}

/*
 * It has to be there, or the one that takes its place, if that may have begun.
 * torn_ok: an unfinished successor may have left anything.
 */
static void expect(Check *c, uint64_t number, uint64_t period, int64_t found,
                   bool torn_ok)
{
    bool has_begun = number + period <= c->safe + 2;

    if (number == 0) {
        return;
    }
    c->checked++;
    if (found == (int64_t)number ||
        (has_begun && (found == (int64_t)(number + period) || torn_ok))) {
        return;
    }
    complain(c, number, found < 0 ? "lost" : found == 0 ? "damaged" : "stale",
             found);
}

static void see_names(Check *c)
{
    int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!d) {
        die("folder");
    }
    while ((entry = readdir(d))) {
        if (!strncmp(entry->d_name, "file", 4) ||
            !strncmp(entry->d_name, "state", 5)) {
            see(c, read_item_file(c->dir, entry->d_name));
        }
    }
    closedir(d);
}

static void see_all(Check *c, int records)
{
    for (uint64_t i = 0; i < SLOTS; i++) {
        see(c, (int64_t)read_item(records, slot_offset(i)));
    }
    see_names(c);
    c->safe = c->newest > 0 ? c->newest - 1 : 0;
    if (c->told > c->safe) {
        c->safe = c->told;
    }
}

static void check_records(Check *c, int records)
{
    for (uint64_t i = 0; i < SLOTS; i++) {
        if (i % 4 < 2) {
            expect(c, newest_with(c->safe, SLOTS, i), SLOTS,
                   (int64_t)read_item(records, slot_offset(i)), true);
        }
    }
}

static void check_states(Check *c)
{
    for (uint64_t i = 0; i < STATES; i++) {
        uint64_t number = newest_with(c->safe, 4 * STATES, 4 * i + 2);
        char name[32];

        state_name(name, sizeof(name), 4 * i + 2);
        expect(c, number, 4 * STATES, read_item_file(c->dir, name), false);
    }
}

static void check_files(Check *c)
{
    uint64_t number = newest_with(c->safe, 4, 3);
    uint64_t oldest = number > KEPT ? number - KEPT + 4 : 3;

    while (number >= oldest) {
        char name[32];

        /* the one that is made next removes the oldest */
        file_name(name, sizeof(name), number);
        expect(c, number, KEPT, read_item_file(c->dir, name),
               number == oldest);
        number = number > 4 ? number - 4 : 0;
    }
}

/* Returns the newest that is there, or exits. */
static uint64_t check(int dir, uint64_t told)
{
    Check c = { .dir = dir, .told = told };
    int records = openat(dir, "records", O_RDONLY | O_CLOEXEC);

    if (records < 0) {
        if (told == 0 && errno == ENOENT) {
            return 0;
        }
        die("records");
    }
    see_all(&c, records);
    check_records(&c, records);
    check_states(&c);
    check_files(&c);
    close(records);
    printf("checked %u, newest %" PRIu64 ", told %" PRIu64 ", bad %u\n",
           c.checked, c.newest, told, c.bad);
    if (c.bad) {
        exit(1);
    }
    return c.newest;
}

/* --- program --- */

static void usage(void)
{
    fprintf(stderr,
"usage: weir-commit check FOLDER TOLD\n"
"       weir-commit work FOLDER NAME\n\n"
"check: whether all transactions up to number TOLD are there, and none is\n"
"half done; exit status 1 if not.  work: go on behind what is there until\n"
"SIGTERM, and print \"committed NAME NUMBER.\" when one is safe.\n");
    exit(2);
}

static void work(int dir, const char *name)
{
    int records = open_records(dir);
    uint64_t number = check(dir, 0);

    while (!stopped) {
        transaction(dir, records, ++number);
        tell(name, number);
    }
    close(records);
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = stop };
    int dir;

    if (argc != 4) {
        usage();
    }
    dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        die(argv[2]);
    }
    sigaction(SIGTERM, &action, NULL);
    if (!strcmp(argv[1], "check")) {
        check(dir, strtoull(argv[3], NULL, 10));
    } else if (!strcmp(argv[1], "work")) {
        work(dir, argv[3]);
    } else {
        usage();
    }
    close(dir);
    return 0;
}
