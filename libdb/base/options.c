/* options.c - setting options by name, checking them, and printing what is allowed: all from the one table.
 *
 * The struct grows from version to version and carries its size: an older program's ends early, a newer one's
 * goes on behind what this library knows. So fields are always moved one by one, and only those that lie
 * within the size. */
#include "base/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum kind { BOOL, COUNT, SIZE, TIME, FD, MODE, DURABLE, WAIT, COMPRESSION, PATH, CALL };

struct option_row {
    const char *name, *meaning;
    enum kind kind;
    size_t offset, width;
    int64_t value, min, max;
};

static const struct option_row rows[] = {
#define X(field, kind, value, min, max, meaning)                                                             \
    {#field, meaning, kind, offsetof(shale_options, field), sizeof(((shale_options *)0)->field),             \
     value,  min,     max},
    BASE_OPTIONS(X)
#undef X
};

struct word {
    enum kind kind;
    const char *text;
    int64_t value;
};

/* The first word of a value is the one that is printed. */
static const struct word words[] = {
    {BOOL, "0", 0},
    {BOOL, "1", 1},
    {BOOL, "false", 0},
    {BOOL, "true", 1},
    {BOOL, "no", 0},
    {BOOL, "yes", 1},
    {BOOL, "off", 0},
    {BOOL, "on", 1},
    {DURABLE, "commit", SHALE_DURABLE_COMMIT},
    {DURABLE, "interval", SHALE_DURABLE_INTERVAL},
    {DURABLE, "off", SHALE_DURABLE_OFF},
    {WAIT, "queue", SHALE_WAIT_QUEUE},
    {WAIT, "backoff", SHALE_WAIT_BACKOFF},
    {WAIT, "none", SHALE_WAIT_NONE},
    {COMPRESSION, "none", SHALE_COMPRESS_NONE},
    {COMPRESSION, "lz4", SHALE_COMPRESS_LZ4},
};

struct unit {
    enum kind kind;
    const char *text;
    int64_t factor;
};

static const struct unit units[] = {
    {SIZE, "", 1},
    {SIZE, "B", 1},
    {SIZE, "K", OPTIONS_KIB},
    {SIZE, "KB", OPTIONS_KIB},
    {SIZE, "KiB", OPTIONS_KIB},
    {SIZE, "M", OPTIONS_MIB},
    {SIZE, "MB", OPTIONS_MIB},
    {SIZE, "MiB", OPTIONS_MIB},
    {SIZE, "G", OPTIONS_GIB},
    {SIZE, "GB", OPTIONS_GIB},
    {SIZE, "GiB", OPTIONS_GIB},
    {SIZE, "T", OPTIONS_GIB * 1024},
    {SIZE, "TB", OPTIONS_GIB * 1024},
    {SIZE, "TiB", OPTIONS_GIB * 1024},
    {TIME, "", 1},
    {TIME, "ms", 1},
    {TIME, "s", 1000},
    {TIME, "min", 60 * 1000},
    {TIME, "h", 3600 * 1000},
    {COUNT, "", 1},
    {FD, "", 1},
    {MODE, "", 1},
};

/* ---- fields ---- */

static bool is_number(const struct option_row *row)
{
    return row->kind != PATH && row->kind != CALL;
}

static int64_t field_load(const shale_options *options, const struct option_row *row)
{
    const char *at = (const char *)options + row->offset;
    if (row->width == sizeof(uint8_t)) {
        uint8_t byte; /* not bool: what an uninitialised one holds is to be refused, not undefined */
        memcpy(&byte, at, sizeof byte);
        return byte;
    }
    if (row->width == sizeof(int64_t)) {
        int64_t wide; /* size_t too: a huge one turns negative, and is out of range as well */
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    uint32_t narrow;
    memcpy(&narrow, at, sizeof narrow);
    return row->kind == FD ? (int32_t)narrow : (int64_t)narrow;
}

static void field_store(shale_options *options, const struct option_row *row, int64_t value)
{
    char *at = (char *)options + row->offset;
    if (row->width == sizeof(uint8_t)) {
        uint8_t byte = (uint8_t)value;
        memcpy(at, &byte, sizeof byte);
    } else if (row->width == sizeof(int64_t)) {
        memcpy(at, &value, sizeof value);
    } else {
        uint32_t narrow = (uint32_t)value;
        memcpy(at, &narrow, sizeof narrow);
    }
}

static bool row_fits(const struct option_row *row, size_t size)
{
    return row->offset + row->width <= size;
}

/* ---- text ---- */

static void print_size(uint64_t value, char *out, size_t cap)
{
    static const char *const names[] = {"", " KiB", " MiB", " GiB", " TiB"};
    size_t i = 0;
    for (; i + 1 < BASE_COUNT(names) && value >= 1024 && value % 1024 == 0; i++) {
        value /= 1024;
    }
    (void)snprintf(out, cap, "%llu%s", (unsigned long long)value, names[i]);
}

static void print_value(enum kind kind, int64_t value, char *out, size_t cap)
{
    for (size_t i = 0; i < BASE_COUNT(words); i++) {
        if (words[i].kind == kind && words[i].value == value) {
            (void)snprintf(out, cap, "%s", words[i].text);
            return;
        }
    }
    if (kind == SIZE) {
        print_size((uint64_t)value, out, cap);
    } else if (kind == MODE) {
        (void)snprintf(out, cap, "0%llo", (unsigned long long)value);
    } else {
        (void)snprintf(out, cap, "%lld", (long long)value);
    }
}

/* "64 KiB to 2 GiB", "commit, interval, off" */
static void print_allowed(const struct option_row *row, char *out, size_t cap)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < BASE_COUNT(words); i++) {
        if (words[i].kind == row->kind && used < cap) {
            used += (size_t)snprintf(out + used, cap - used, "%s%s", used > 0 ? ", " : "", words[i].text);
        }
    }
    if (row->kind == PATH) {
        (void)snprintf(out, cap, "an absolute path of up to %zu bytes, or nothing", row->width - 1);
    } else if (used == 0) {
        char min[32], max[32];
        print_value(row->kind, row->min, min, sizeof min);
        print_value(row->kind, row->max, max, sizeof max);
        (void)snprintf(out, cap, "%s to %s%s", min, max, row->kind == TIME ? " ms" : "");
    }
}

int options_each(int (*fn)(void *ctx, const struct option_text *option), void *ctx)
{
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        struct option_text text = {.name = rows[i].name, .meaning = rows[i].meaning};
        if (rows[i].kind == CALL) {
            continue;
        }
        if (is_number(&rows[i])) {
            print_value(rows[i].kind, rows[i].value, text.value, sizeof text.value);
        }
        print_allowed(&rows[i], text.allowed, sizeof text.allowed);
        int rc = fn(ctx, &text);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- checking ---- */

/* Of the modes, 0600 to 0777 are all those with read and write for the owner: without them we could not open
 * our own files again. */
static bool value_ok(const struct option_row *row, int64_t value)
{
    return value >= row->min && value <= row->max;
}

static int value_error(const struct option_row *row, const char *value)
{
    char allowed[sizeof((struct option_text *)0)->allowed];
    print_allowed(row, allowed, sizeof allowed);
    return err_set(SHALE_INVALID, "option %s: \"%s\" is not allowed (allowed: %s)", row->name, value,
                   allowed);
}

void shale_options_init_sized(shale_options *options, size_t size)
{
    if (options == NULL || size < sizeof options->size) {
        return;
    }
    memset(options, 0, size);
    options->size = size;
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        if (is_number(&rows[i]) && row_fits(&rows[i], size)) {
            field_store(options, &rows[i], rows[i].value);
        }
    }
}

/* Of at most width bytes, its end included. */
static bool path_ok(const struct option_row *row, const char *value)
{
    return memchr(value, '\0', row->width) != NULL && (value[0] == '\0' || value[0] == '/');
}

static int check_field(const shale_options *options, const struct option_row *row)
{
    const char *at = (const char *)options + row->offset;
    if (row->kind == PATH && !path_ok(row, at)) {
        return value_error(row, memchr(at, '\0', row->width) != NULL ? at : "too long");
    }
    if (is_number(row) && !value_ok(row, field_load(options, row))) {
        char text[32];
        print_value(row->kind, field_load(options, row), text, sizeof text);
        return value_error(row, text);
    }
    return SHALE_OK;
}

/* A newer program's struct may go on behind ours, as long as it asks for nothing there. */
static int check_size(const shale_options *in)
{
    if (in->size < sizeof in->size || in->size > OPTIONS_MIB) {
        return err_set(SHALE_INVALID, "options.size is %zu: use shale_options_init first", in->size);
    }
    for (size_t i = sizeof *in; i < in->size; i++) {
        if (((const unsigned char *)in)[i] != 0) {
            return err_set(SHALE_INVALID, "the options hold something that version %s does not know",
                           shale_version());
        }
    }
    return SHALE_OK;
}

int options_check(const shale_options *in, shale_options *out)
{
    shale_options all;
    shale_options_init_sized(&all, sizeof all);
    if (in != NULL) {
        int rc = check_size(in);
        if (rc != SHALE_OK) {
            return rc;
        }
        for (size_t i = 0; i < BASE_COUNT(rows); i++) {
            if (row_fits(&rows[i], in->size)) {
                memcpy((char *)&all + rows[i].offset, (const char *)in + rows[i].offset, rows[i].width);
            }
        }
    }
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        int rc = check_field(&all, &rows[i]);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    if (all.l0_stop <= all.l0_compact) {
        return err_set(SHALE_INVALID,
                       "option l0_stop: %u is not allowed (allowed: more than l0_compact, which is %u)",
                       all.l0_stop, all.l0_compact);
    }
    *out = all;
    return SHALE_OK;
}

/* ---- by name ---- */

int shale_options_create(shale_options **options)
{
    if (options == NULL) {
        return err_set(SHALE_INVALID, "options is NULL");
    }
    *options = base_alloc(sizeof **options);
    if (*options == NULL) {
        return SHALE_NOMEM;
    }
    shale_options_init_sized(*options, sizeof **options);
    return SHALE_OK;
}

void shale_options_destroy(shale_options *options)
{
    free(options);
}

static size_t smallest(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Insertions, deletions and replacements that make b of a; anything longer than a name can be is just far
 * away. */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 32 };
    size_t cost[LONGEST + 1], n = strlen(b);
    if (n > LONGEST || strlen(a) > LONGEST) {
        return LONGEST;
    }
    for (size_t j = 0; j <= n; j++) {
        cost[j] = j;
    }
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = cost[0];
        cost[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t above = cost[j + 1];
            cost[j + 1] = smallest(above + 1, cost[j] + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return cost[n];
}

static int name_error(const char *name)
{
    char all[512];
    size_t used = 0, best = 4; /* further away than 3 is no slip of the finger */
    const char *closest = NULL;
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        if (rows[i].kind == CALL) {
            continue;
        }
        if (used < sizeof all) {
            used +=
                (size_t)snprintf(all + used, sizeof all - used, "%s%s", used > 0 ? ", " : "", rows[i].name);
        }
        size_t d = distance(name, rows[i].name);
        if (d < best) {
            best = d;
            closest = rows[i].name;
        }
    }
    if (closest != NULL) {
        return err_set(SHALE_INVALID, "no option \"%s\"; did you mean %s? (allowed: %s)", name, closest, all);
    }
    return err_set(SHALE_INVALID, "no option \"%s\" (allowed: %s)", name, all);
}

static bool parse_number(enum kind kind, const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, kind == MODE ? 8 : 10);
    if (end == text || errno != 0) {
        return false;
    }
    for (size_t i = 0; i < BASE_COUNT(units); i++) {
        if (units[i].kind == kind && strcasecmp(units[i].text, end) == 0) {
            int64_t product;
            if (__builtin_mul_overflow((int64_t)number, units[i].factor, &product)) {
                return false;
            }
            *value = product;
            return true;
        }
    }
    return false;
}

static bool parse_value(const struct option_row *row, const char *text, int64_t *value)
{
    bool by_word = false;
    for (size_t i = 0; i < BASE_COUNT(words); i++) {
        if (words[i].kind == row->kind) {
            by_word = true;
            if (strcasecmp(words[i].text, text) == 0) {
                *value = words[i].value;
                return true;
            }
        }
    }
    return !by_word && parse_number(row->kind, text, value) && value_ok(row, *value);
}

/* All of the field is written: it is compared and copied whole. */
static int set_path(shale_options *options, const struct option_row *row, const char *value)
{
    size_t length = strlen(value);
    if (length >= row->width || !path_ok(row, value)) {
        return value_error(row, value);
    }
    char *at = (char *)options + row->offset;
    memset(at, 0, row->width);
    memcpy(at, value, length);
    return SHALE_OK;
}

int shale_options_set(shale_options *options, const char *name, const char *value)
{
    const struct option_row *row = NULL;
    int64_t parsed = 0;
    if (options == NULL || name == NULL || value == NULL) {
        return err_set(SHALE_INVALID, "options, name or value is NULL");
    }
    for (size_t i = 0; i < BASE_COUNT(rows) && row == NULL; i++) {
        row = rows[i].kind != CALL && strcmp(rows[i].name, name) == 0 ? &rows[i] : NULL;
    }
    if (row == NULL) {
        return name_error(name);
    }
    if (!row_fits(row, options->size)) {
        return err_set(SHALE_INVALID, "option %s: unknown to the version that the caller was compiled with",
                       name);
    }
    if (row->kind == PATH) {
        return set_path(options, row, value);
    }
    if (!parse_value(row, value, &parsed)) {
        return value_error(row, value);
    }
    field_store(options, row, parsed);
    return SHALE_OK;
}
