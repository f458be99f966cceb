/* logkit.c - see logkit.h. */
#include "logkit.h"

#include <ftw.h>
#include <signal.h>

const unsigned char kit_uuid[16] = "a database's id";
int kit_dirfd = -1;
static char root[256];

static void setup(void)
{
    char dir[300];
    (void)snprintf(dir, sizeof dir, "%s/XXXXXX", root);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    assert_ok(os_open_dir(dir, &kit_dirfd));
}

static void teardown(void)
{
    os_close(&kit_dirfd);
}

void kit_add(Suite *s, const char *name, const TTest *const *tests, size_t n)
{
    TCase *tc = tcase_create(name);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    for (size_t i = 0; i < n; i++) {
        tcase_add_test(tc, tests[i]);
    }
    suite_add_tcase(s, tc);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

int kit_main(int argc, char **argv, Suite *(*suite)(void),
             int (*agent)(const char *what, const char *argument))
{
    const char *tmp = getenv("TMPDIR");
    if (argc == 4 && strcmp(argv[1], "--agent") == 0) {
        return os_open_dir(".", &kit_dirfd) == SHALE_OK ? agent(argv[2], argv[3]) : 97;
    }
    (void)snprintf(root, sizeof root, "%s/shale-unit.XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(root) == NULL) {
        perror("mkdtemp");
        return 71;
    }
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_ENV);
    int wrong = srunner_ntests_failed(runner);
    srunner_free(runner);
    (void)nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return wrong == 0 ? 0 : 1;
}

/* ---- segments ---- */

struct wal_segment *make_and_open(uint32_t number, uint64_t size)
{
    struct wal_segment *seg = NULL;
    assert_ok(wal_make(kit_dirfd, kit_uuid, number, size, 0600, 0));
    assert_ok(wal_open(kit_dirfd, kit_uuid, number, true, &seg));
    return seg;
}

uint32_t append_one(struct wal_segment *seg, uint32_t at, uint64_t seq, struct slice key, struct slice value,
                    bool through_file)
{
    struct buf payload = {0};
    struct wal_record header;
    assert_ok(wal_add_entry(&payload, value.data != NULL ? WAL_PUT : WAL_DELETE, key, value));
    wal_seal(seg, at, 1, seq, payload.data, (uint32_t)payload.size, &header);
    assert_ok(wal_append(seg, at, &header, payload.data, through_file));
    uint32_t end = at + (uint32_t)wal_record_size(payload.size);
    buf_release(&payload);
    return end;
}

void write_at(const char *name, const void *data, size_t size, uint64_t offset)
{
    int fd = -1;
    assert_ok(os_open(kit_dirfd, name, O_RDWR, 0, &fd));
    assert_ok(os_pwrite(fd, data, size, offset));
    os_close(&fd);
}

struct pair pair_make(uint64_t size, bool private)
{
    struct pair p = {.seg = make_and_open(1, size), .at = WAL_FIRST, .seq = 1};
    if (private) {
        assert_ok(mem_open_private(p.seg, &p.mem));
    } else {
        assert_ok(mem_make(kit_dirfd, p.seg, 0600));
        assert_ok(mem_open(kit_dirfd, p.seg, true, &p.mem));
    }
    return p;
}

void pair_release(struct pair *p)
{
    assert_ok(mem_check(p->mem));
    mem_unref(p->mem);
    wal_unref(p->seg);
}

void pair_put(struct pair *p, struct slice key, struct slice value)
{
    struct wal_view rec;
    uint32_t end = append_one(p->seg, p->at, p->seq, key, value, false);
    assert_ok(wal_read(p->seg, p->at, &rec));
    assert_ok(mem_insert_record(p->mem, &rec));
    p->at = end;
    p->seq++;
}

void pair_expect(const struct pair *p, struct slice key, uint64_t seq, const char *value)
{
    struct mem_hit hit;
    int rc = mem_get(p->mem, key, seq, &hit);
    if (value == NULL) {
        ck_assert_int_eq(rc, SHALE_NOTFOUND);
        return;
    }
    ck_assert_msg(rc == SHALE_OK, "%d: %s", rc, shale_errmsg());
    ck_assert(hit.type == WAL_PUT && hit.seq <= seq && slice_equal(hit.value, text(value)));
}

static int count_name(void *ctx, const char *name)
{
    struct names *n = ctx;
    uint32_t number;
    n->files++;
    if (wal_parse_tmp_name(name, "wal", &number) || mem_parse_tmp_name(name, &number)) {
        n->tmps++;
        (void)snprintf(n->tmp, sizeof n->tmp, "%.47s", name);
    }
    return 0;
}

struct names names_there(void)
{
    struct names n = {0};
    assert_ok(os_list(kit_dirfd, count_name, &n));
    return n;
}

void sweep_all(void)
{
    for (struct names n = names_there(); n.tmps != 0; n = names_there()) {
        assert_ok(wal_sweep_tmp(kit_dirfd, n.tmp));
    }
}

/* ---- other processes ---- */

struct agent agent_start(const char *what, const char *argument)
{
    int to[2], from[2];
    struct agent a;
    ck_assert_int_eq(pipe(to), 0);
    ck_assert_int_eq(pipe(from), 0);
    a.pid = fork();
    ck_assert_int_ge(a.pid, 0);
    if (a.pid == 0) {
        if (fchdir(kit_dirfd) != 0 || dup2(to[0], 0) < 0 || dup2(from[1], 1) < 0) {
            _exit(99);
        }
        (void)close(to[1]);
        (void)close(from[0]);
        (void)execl("/proc/self/exe", "agent", "--agent", what, argument, (char *)NULL);
        _exit(98);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    a.to = to[1];
    a.from = from[0];
    return a;
}

void agent_expect(const struct agent *a, char said)
{
    char c = '\0';
    ck_assert_int_eq(read(a->from, &c, 1), 1);
    ck_assert_int_eq(c, said);
}

int agent_end(struct agent *a)
{
    int status = 0;
    (void)close(a->to);
    ck_assert_int_eq(waitpid(a->pid, &status, 0), a->pid);
    (void)close(a->from);
    return status;
}

int agent_kill(struct agent *a)
{
    (void)kill(a->pid, SIGKILL);
    return agent_end(a);
}

static unsigned marks_left;

static void die_at_mark(enum os_mark mark)
{
    (void)mark;
    if (marks_left-- == 0) {
        (void)raise(SIGKILL);
    }
}

void kit_die_at(unsigned n)
{
    marks_left = n;
    os_mark_hook = die_at_mark;
}

/* ---- system calls that go wrong ---- */

static unsigned calls_left;
static int call_error;

static int break_one(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op == OS_OP_CLOSE || op == OS_OP_UNLINK || op == OS_OP_UNMAP) {
        return 0; /* cleaning up works */
    }
    return calls_left-- == 0 ? call_error : 0;
}

void kit_break_call(unsigned n, int error)
{
    calls_left = n;
    call_error = error;
    os_door_hook = break_one;
}

bool kit_mend(void)
{
    os_door_hook = NULL;
    return (int32_t)calls_left < 0; /* counted on past 0 */
}
