/* arena.h - what stands in a .mem file, and how to get at it without trusting it.
 *
 *   0         64             128     192       4096                             end               size
 *   | header  | writer's own | root  | zero    | nodes, records and versions ... | never used yet | filter |
 *
 * A reference counts units of 8 bytes from the start of the file: 32 bits reach 32 GiB, and nothing that it
 * can name is misaligned. 0 is none.
 *
 * The index is a B-link tree: every node knows its right neighbour on its level, and a search that finds its
 * key behind a node's last entry looks there too. A node has 15 slots, filled in any order; `perm` says which
 * are in use and how they are sorted, so that one store puts an entry between others:
 *
 *      perm    4 bits: how many entries; then 15 times 4 bits, the slots in the order of their keys, the
 *              unused ones behind (as in Masstree: Mao, Kohler, Morris, EuroSys 2012)
 *      head    of each slot the key's first 16 bytes; all ones where there is no entry
 *      refs    level 0: the key's record; above: a node one level down, whose keys are not below this one
 *      entries where the key stands in the log, for keys that are alike in 16 bytes
 *
 * A node that came to be by a split has its least key in slot 0, for ever: that is what its left neighbour's
 * readers look at. The leftmost node of a level has no least key: what slot 0 says there, above level 0, is
 * not looked at.
 *
 * A key has one record, that never moves: its first version, and the chain of the later ones, newest first:
 * record.versions -> version -> ... -> 0, and 0 stands for the one in the record. Each has a jump pointer
 * besides (mem/chain.c). Since the arena only grows, an older version always has a lower reference: a walk
 * that insists on that ends, whatever the bytes are.
 */
#ifndef MEM_ARENA_H
#define MEM_ARENA_H

#include "mem/filter.h"

#include <stddef.h>

#define MEM_MAGIC    UINT64_C(0x316d656d6c656873) /* "shelmem1", little-endian */
#define MEM_FORMAT   3
#define MEM_WIDTH    15u
#define MEM_FEWEST   7u /* that a split leaves in a node */
#define MEM_UNIT     8u
#define MEM_FIRST    4096u /* where the arena begins */
#define MEM_SIZE_MAX (UINT64_C(1) << 35)

struct mem_header {
    uint64_t magic;
    uint32_t format;
    uint32_t number;
    uint64_t salt;     /* of the segment: ties the index to this very log */
    uint64_t size;     /* of the file, with the filter */
    uint64_t checksum; /* of the 32 bytes before */
    unsigned char zero[24];
    /* the writer's own cache line; under WRITE */
    _Atomic uint32_t end;       /* [I-16] in units; nothing of ours stands at or above it */
    _Atomic uint32_t splitting; /* the node that is being split, until it is done (insert.h) */
    _Atomic uint64_t entries, keys;
    unsigned char zero2[40];
    /* readers' */
    _Atomic uint32_t root;
    uint32_t zero3;
};
_Static_assert(offsetof(struct mem_header, checksum) == 32, "doc/format says 32");
_Static_assert(offsetof(struct mem_header, end) == 64, "doc/format: a cache line of its own");
_Static_assert(offsetof(struct mem_header, splitting) == 68, "doc/format says 68");
_Static_assert(offsetof(struct mem_header, entries) == 72, "doc/format says 72");
_Static_assert(offsetof(struct mem_header, root) == 128, "doc/format: a cache line of its own");
_Static_assert(sizeof(struct mem_header) == 136, "doc/format says 136");

struct mem_node {
    _Atomic uint64_t perm;
    _Atomic uint32_t splits; /* how often slots were freed: what was read before and after is of one state */
    _Atomic uint32_t next;   /* the right neighbour */
    _Atomic uint32_t level;  /* 0: a leaf */
    uint32_t zero;
    _Atomic uint64_t head[2][MEM_WIDTH]; /* first 16 bytes as two big-endian integers, zero padded */
    _Atomic uint32_t refs[MEM_WIDTH], entries[MEM_WIDTH];
};
_Static_assert(offsetof(struct mem_node, level) == 16, "doc/format says 16");
_Static_assert(offsetof(struct mem_node, head) == 24, "doc/format says 24");
_Static_assert(offsetof(struct mem_node, refs) == 264, "doc/format says 264");
_Static_assert(sizeof(struct mem_node) == 384, "doc/format: six cache lines");

struct mem_record {
    uint64_t seq;              /* of the key's first version */
    uint32_t entry;            /* where it stands in the segment */
    _Atomic uint32_t versions; /* the newest of the chain; 0: there is but the first */
};
_Static_assert(sizeof(struct mem_record) == 16, "doc/format says 16");

struct mem_version {
    uint64_t seq;
    uint32_t entry;
    uint32_t prev;  /* the next older one */
    uint32_t jump;  /* one further back */
    uint32_t depth; /* how many are older: at least 1 */
};
_Static_assert(sizeof(struct mem_version) == 24, "doc/format says 24");

/* A key as a search carries it: comparing heads decides mostly. */
struct mem_key {
    uint64_t head[2];
    struct slice bytes;
};

static inline struct mem_key mem_key_make(struct slice key)
{
    return (struct mem_key){{key_head(key), key_second_head(key)}, key};
}

static inline struct mem_header *mem_header(const struct mem_index *m)
{
    return (struct mem_header *)(void *)m->arena;
}

static inline void *mem_at(const struct mem_index *m, uint32_t ref)
{
    return m->arena + (uint64_t)ref * MEM_UNIT;
}

/* NULL: no node can stand there. */
static inline struct mem_node *mem_node_at(const struct mem_index *m, uint32_t ref)
{
    const uint32_t first = MEM_FIRST / MEM_UNIT, aligned = BASE_CACHELINE / MEM_UNIT;
    if (BASE_UNLIKELY(ref - first > m->last_node - first || ref % aligned != 0)) {
        return NULL;
    }
    return mem_at(m, ref);
}

/* NULL: no version can stand there, and no record. */
static inline struct mem_version *mem_version_at(const struct mem_index *m, uint32_t ref)
{
    const uint32_t first = MEM_FIRST / MEM_UNIT;
    if (BASE_UNLIKELY(ref - first > m->last_version - first)) {
        return NULL;
    }
    return mem_at(m, ref);
}

static inline struct mem_record *mem_record_at(const struct mem_index *m, uint32_t ref)
{
    return (struct mem_record *)(void *)mem_version_at(m, ref);
}

static inline unsigned mem_count(uint64_t perm)
{
    return (unsigned)(perm & 15);
}

/* The slot of the entry at a position below MEM_WIDTH: one that there is, whatever the bits. */
static inline unsigned mem_slot(uint64_t perm, unsigned pos)
{
    unsigned slot = (unsigned)(perm >> (4 * pos + 4)) & 15;
    return slot < MEM_WIDTH ? slot : 0;
}

static inline uint32_t mem_ref_at(const struct mem_node *n, uint64_t perm, unsigned pos)
{
    return atomic_load_explicit(&n->refs[mem_slot(perm, pos)], memory_order_relaxed);
}

/* Acquire: the node behind it was complete when it was stored [I-16]. */
static inline uint32_t mem_next(const struct mem_node *n)
{
    return atomic_load_explicit(&n->next, memory_order_acquire);
}

static inline unsigned mem_level(const struct mem_node *n)
{
    return atomic_load_explicit(&n->level, memory_order_relaxed);
}

static inline uint32_t mem_root(const struct mem_index *m)
{
    return atomic_load_explicit(&mem_header(m)->root, memory_order_acquire);
}

/* A hint: the reference may be anything. */
static inline void mem_prefetch(const struct mem_index *m, uint32_t ref)
{
    __builtin_prefetch((const void *)((uintptr_t)m->arena + (uintptr_t)ref * MEM_UNIT));
}

/* All of a node at once: its cache lines come one beside the other. */
static inline void mem_prefetch_node(const struct mem_node *n)
{
#pragma GCC unroll 6
    for (unsigned i = 0; i < sizeof *n; i += BASE_CACHELINE) {
        __builtin_prefetch((const char *)n + i);
    }
}

/* The log's bytes; false where none can stand. */
static inline bool mem_entry_at(const struct mem_index *m, uint32_t offset, struct wal_entry *e)
{
    const struct wal_segment *s = m->seg;
    return offset >= WAL_FIRST && offset < s->size && wal_decode_entry(s->map + offset, s->map + s->size, e);
}

/* SHALE_CORRUPT, "000012.mem: WHAT at WHERE". */
int mem_damaged(const struct mem_index *m, const char *what, uint64_t where);

/* ---- search.c ---- */

struct mem_search {
    const struct mem_index *mem;
    struct mem_key key;
    uint64_t steps;  /* left: noise may hold a cycle */
    bool damaged;    /* a reference, a log offset or the number of steps was out of bounds */
    uint32_t hopped; /* bit i: on level i the node's neighbour on the left did not know, nor did its parent */
    uint32_t path[MEM_LEVELS]; /* the node on each level that the search came through */
};

/* A place in a node, as of a moment. */
struct mem_spot {
    uint32_t node;   /* 0: there is none, the index is empty */
    uint32_t splits; /* these two unchanged: the rest is so still */
    uint64_t perm;
    unsigned pos; /* of the first entry >= the searched key; behind the last one: there is none here */
    bool equal;   /* its key is the searched one */
    uint32_t ref; /* level 0: its record, 0 behind the last; above: the node to go on with */
};
void mem_search_start(struct mem_search *s, const struct mem_index *m, struct slice key);
/* The key's place in this very leaf. */
void mem_look(struct mem_search *s, uint32_t node, struct mem_spot *at);
/* Its place on a level. from: a node of that level or a higher one, not right of the place; 0: the root.
 * strict: where a node begins with the key, the place behind the last entry of its left neighbour. */
void mem_find(struct mem_search *s, uint32_t from, unsigned level, bool strict, struct mem_spot *at);
/* The last entry of all: at->pos is one more than its position. */
void mem_find_last(struct mem_search *s, struct mem_spot *at);
/* The first key that a node with a left neighbour can have, against the searched one: <0, 0, >0. */
int mem_compare_low(struct mem_search *s, const struct mem_node *n);

/* ---- chain.c ---- */

/* The newest version of the record with a sequence number <= seq: SHALE_OK, SHALE_NOTFOUND, SHALE_CORRUPT. */
int mem_chain_find(const struct mem_index *m, const struct mem_record *r, uint64_t seq, uint64_t *found,
                   uint32_t *entry);
/* Fills in a version that is to stand in front of the chain (all but seq and entry). */
int mem_chain_prepare(const struct mem_index *m, const struct mem_record *r, struct mem_version *v);

#endif
