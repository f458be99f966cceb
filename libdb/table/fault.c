/* fault.c - faulting in, a stretch at a time where that costs no reading: see fault.h. */
#include "table/fault.h"

#include <stdlib.h>

#define WANTED 1

int faults_init(struct table_faults *f, unsigned char *map, uint64_t size, bool told)
{
    *f = (struct table_faults){.map = map, .size = size, .told = told};
    f->stretches = base_calloc((size_t)((size + FAULT_STRETCH - 1) / FAULT_STRETCH), sizeof *f->stretches);
    return f->stretches != NULL ? SHALE_OK : SHALE_NOMEM;
}

void faults_release(struct table_faults *f)
{
    free(f->stretches);
    f->stretches = NULL;
}

/* Is stretch i there, or can all of it be had without reading? */
static bool take_stretch(const struct table_faults *f, uint64_t i)
{
    _Atomic int64_t *stretch = &f->stretches[i];
    int64_t state = atomic_load_explicit(stretch, memory_order_relaxed);
    uint64_t begin = i * FAULT_STRETCH;
    uint64_t size = f->size - begin < FAULT_STRETCH ? f->size - begin : FAULT_STRETCH;
    if (!f->told) {
        return false;
    }
    if (state == 0) {
        atomic_store_explicit(stretch, WANTED, memory_order_relaxed);
        return false;
    }
    int64_t now = os_now();
    if (state != WANTED && now < state) {
        return true;
    }
    if (!os_map_resident(f->map, (size_t)begin, (size_t)size)) {
        return false;
    }
    if (os_map_populate_read(f->map, (size_t)begin, (size_t)size) != SHALE_OK) {
        err_clear(); /* a bad page next door is not our trouble */
        return false;
    }
    atomic_store_explicit(stretch, now + FAULT_BELIEF_NS, memory_order_relaxed);
    return true;
}

int faults_need(const struct table_faults *f, uint64_t from, uint64_t to)
{
    int rc = SHALE_OK;
    while (f->map != NULL && rc == SHALE_OK && from < to) {
        uint64_t i = from / FAULT_STRETCH, end = (i + 1) * FAULT_STRETCH;
        end = end < to ? end : to;
        if (!take_stretch(f, i)) {
            rc = os_map_populate_read(f->map, (size_t)from, (size_t)(end - from));
        }
        from = end;
    }
    return rc;
}
