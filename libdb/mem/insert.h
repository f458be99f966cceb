/* insert.h - the one writer's side: what it does, in which order, and why it may be killed anywhere.
 *
 * [I-16] The rules:
 *
 * Room: `end` is raised before anything is filled in. Killed then, the bytes are lost, nothing else: the next
 * writer begins at `end`.
 *
 * An entry goes into a slot that the permutation does not name. The slot is filled in, and then one release
 * store of the permutation puts it between the others. Killed before, the slot is free, as it was. A version
 * is filled in, then made its record's newest with a release store.
 *
 * A split of a full node L, in running order:
 *
 *     R := a copy of L's upper half, R.next := L.next      nobody knows R
 *     splitting := L                                       now whoever inserts next finishes it
 *     L.next := R                                          both have the upper half
 *     L.perm := the lower half only
 *     L.splits + 1, and a fence                            readers of the old permutation notice
 *     what L's freed slots held := all ones
 *     splitting := 0                                       now the slots may be used again
 *
 * Killed before R was linked, R's bytes are lost. After: the next one shortens L by what R has, which it sees
 * from R alone, so that it does not matter how far the dead one had come, nor how often that happens. Nothing
 * is put anywhere while `splitting` is set.
 *
 * Where a key goes behind the last entry of a level's last node, and that is full, nothing is split: a new
 * node with nothing but that entry is linked behind it. So keys that ascend leave full nodes.
 *
 * The parent is told of R afterwards: an entry like any other. Until then, and for ever if the writer was
 * killed, R is found over L. Who inserts and finds its way so tells the parent. A new root is complete, with
 * the old one and its neighbour in it, before it is stored.
 *
 * Readers take no part in any of this (search.c).
 */
#ifndef MEM_INSERT_H
#define MEM_INSERT_H

#include "mem/arena.h"

/* What a slot holds. */
struct mem_entry {
    uint64_t head[2];
    uint32_t ref, entry;
};

/* ---- room.c ---- */

/* Takes `size` bytes from the arena, at a multiple of `align` bytes; 0: no room, or the end is nonsense. */
uint32_t mem_take(struct mem_index *m, uint64_t size, uint64_t align);
/* The error of who got none. */
int mem_no_room(const struct mem_index *m);

/* ---- split.c ---- */

/* Puts the entry at a position of a node that is not full. */
int mem_put_slot(struct mem_index *m, const struct mem_spot *at, const struct mem_entry *e);
/* A node of one entry, that nobody knows yet. */
int mem_make_node(struct mem_index *m, unsigned level, const struct mem_entry *e, uint32_t *ref);
/* Puts the entry where it belongs, into a node that is full; *right: the node that came to be, at->node:
 * where the entry is. */
int mem_put_full(struct mem_index *m, struct mem_spot *at, const struct mem_entry *e, uint32_t *right);
/* Tells the parents of a node that came to be on `level`, to which m->path led, as far up as need be. Where
 * there is no room it is left undone. */
int mem_tell_parents(struct mem_index *m, unsigned level, uint32_t node);
/* Finishes the split that a killed writer left. */
int mem_finish_split(struct mem_index *m);

#endif
