/* format.c - names of table files, trailers, the footer's arithmetic. */
#include "table/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TABLE_SUFFIX     ".sst"
#define TABLE_TMP_SUFFIX ".sst.tmp"

void table_name(uint64_t number, char name[TABLE_NAME_SIZE])
{
    (void)strcpy(digits_decimal(name, number, 6), TABLE_SUFFIX);
}

void table_tmp_name(uint64_t number, char name[TABLE_NAME_SIZE])
{
    (void)strcpy(digits_decimal(name, number, 6), TABLE_TMP_SUFFIX);
}

/* Only the exact form that the two functions above produce: printing the number again must give the name. */
bool table_parse_name(const char *name, uint64_t *number, bool *tmp)
{
    uint64_t n = 0;
    const char *p = name;
    for (; *p >= '0' && *p <= '9'; p++) {
        unsigned digit = (unsigned)(*p - '0');
        if (n > (UINT64_MAX - digit) / 10) {
            return false;
        }
        n = n * 10 + digit;
    }
    bool is_tmp = strcmp(p, TABLE_TMP_SUFFIX) == 0;
    char again[TABLE_NAME_SIZE] = "";
    if (is_tmp) {
        table_tmp_name(n, again);
    } else {
        table_name(n, again);
    }
    if (strcmp(again, name) != 0) {
        return false;
    }
    *number = n;
    *tmp = is_tmp;
    return true;
}

void table_info_release(struct table_info *info)
{
    buf_release(&info->smallest);
    buf_release(&info->largest);
}

bool table_layout(const struct table_footer *f, uint64_t file_size, struct table_layout *at)
{
    const uint64_t trailer = sizeof(struct table_trailer);
    if (f->data_size > file_size || f->filter_size > file_size || f->index_size > file_size ||
        f->properties_size > file_size || file_size > INT64_MAX / 8) {
        return false;
    }
    at->filter = align_up(f->data_size, TABLE_ALIGN);
    at->index = align_up(at->filter + f->filter_size, TABLE_ALIGN);
    at->sums = at->index + f->index_size;
    at->pages = (at->sums + TABLE_PAGE - 1) / TABLE_PAGE - f->data_size / TABLE_PAGE;
    at->properties = at->sums + at->pages * 8 + trailer;
    at->footer = at->properties + f->properties_size + trailer;
    return at->footer + sizeof(struct table_footer) == file_size;
}

void table_seal(unsigned char *p, uint64_t size, uint64_t raw_size, enum table_kind kind,
                enum table_packing packing, uint64_t number, uint64_t offset)
{
    struct table_trailer t = {
        .raw_size = (uint32_t)raw_size, .kind = (uint8_t)kind, .packing = (uint8_t)packing};
    memcpy(p + size, &t, sizeof t);
    t.checksum = checksum(p, size + offsetof(struct table_trailer, checksum), checksum_seed(number, offset));
    memcpy(p + size, &t, sizeof t);
}

int table_unseal(const unsigned char *p, uint64_t size, uint64_t raw_size, enum table_kind kind,
                 enum table_packing packing, uint64_t number, uint64_t offset)
{
    struct table_trailer t;
    memcpy(&t, p + size, sizeof t);
    uint64_t sum =
        checksum(p, size + offsetof(struct table_trailer, checksum), checksum_seed(number, offset));
    if (sum != t.checksum) {
        return err_set(SHALE_CORRUPT, "checksum mismatch");
    }
    if (t.raw_size != raw_size || t.kind != kind || t.packing != packing || t.zero != 0) {
        return err_set(SHALE_CORRUPT, "not the block that the index names");
    }
    return SHALE_OK;
}

uint64_t table_footer_checksum(const struct table_footer *f)
{
    return checksum(f, offsetof(struct table_footer, checksum), checksum_seed(TABLE_MAGIC, 0));
}
