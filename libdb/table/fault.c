/* fault.c - faulting in, a stretch at a time where that costs no reading: see fault.h. */
#include "table/fault.h"

#include <stdlib.h>
#include <unistd.h>

int faults_init(struct table_faults *f, unsigned char *map, uint64_t size, uid_t owner)
{
    uint64_t count = (size + FAULT_STRETCH - 1) / FAULT_STRETCH;
    uid_t me = geteuid();
    *f = (struct table_faults){.map = map, .size = size, .told = me == 0 || me == owner};
    size_t words = (size_t)(count + 63) / 64;
    f->wanted = base_calloc(words * 2, sizeof *f->wanted);
    if (f->wanted == NULL) {
        return SHALE_NOMEM;
    }
    f->done = f->wanted + words;
    return SHALE_OK;
}

void faults_release(struct table_faults *f)
{
    free(f->wanted);
    f->wanted = f->done = NULL;
}

static bool bit_test(const _Atomic uint64_t *bits, uint64_t i)
{
    return (atomic_load_explicit(&bits[i / 64], memory_order_relaxed) >> i % 64 & 1) != 0;
}

/* true: it was set before. */
static bool bit_set(_Atomic uint64_t *bits, uint64_t i)
{
    uint64_t bit = UINT64_C(1) << i % 64;
    return (atomic_fetch_or_explicit(&bits[i / 64], bit, memory_order_relaxed) & bit) != 0;
}

/* Stretch i as a whole, if that needs no reading. */
static bool take_stretch(const struct table_faults *f, uint64_t i)
{
    uint64_t begin = i * FAULT_STRETCH;
    uint64_t size = f->size - begin < FAULT_STRETCH ? f->size - begin : FAULT_STRETCH;
    if (!f->told || !bit_set(f->wanted, i) || !os_map_resident(f->map, (size_t)begin, (size_t)size)) {
        return false;
    }
    if (os_map_populate_read(f->map, (size_t)begin, (size_t)size) != SHALE_OK) {
        err_clear(); /* a bad page next door is not our trouble */
        return false;
    }
    (void)bit_set(f->done, i);
    return true;
}

int faults_need(const struct table_faults *f, uint64_t from, uint64_t to)
{
    int rc = SHALE_OK;
    while (f->map != NULL && rc == SHALE_OK && from < to) {
        uint64_t i = from / FAULT_STRETCH, end = (i + 1) * FAULT_STRETCH;
        end = end < to ? end : to;
        if (!bit_test(f->done, i) && !take_stretch(f, i)) {
            rc = os_map_populate_read(f->map, (size_t)from, (size_t)(end - from));
        }
        from = end;
    }
    return rc;
}
