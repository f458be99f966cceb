/* fd.c - lockd lock, unlock, path and wait: a lock on a descriptor that the script opened itself.
 *
 *      exec 9<>"$(lockd path DIR)"; lockd lock DIR:NAME 9; ...; lockd unlock DIR:NAME 9
 *
 * The lock belongs to the script's open file and outlives lockd, so the script is named as the holder: our
 * parent. */
#include "lockd.h"

#include <stdio.h>
#include <stdlib.h>

static int bad_fd(const char *dir, int fd, const char *why)
{
    complain("%s: descriptor %d %s (open it with exec %d<>%s/LOCK)", dir, fd, why, fd, dir);
    return EXIT_DESCRIPTOR;
}

/* Before anything else is opened: it could get that number. */
static int parse_fd(const char *command, const struct request *r, int *fd)
{
    char *end;
    if (r->rest_count != 1) {
        return usage_error("%s: a descriptor is needed, and nothing behind it", command);
    }
    errno = 0;
    long n = strtol(r->rest[0], &end, 10);
    if (errno != 0 || end == r->rest[0] || *end != '\0' || n < 0 || n > INT32_MAX) {
        return usage_error("%s: %s is no descriptor's number", command, r->rest[0]);
    }
    *fd = (int)n;
    return fcntl(*fd, F_GETFD) >= 0 ? 0 : bad_fd(r->target.dir, *fd, "is not open");
}

/* Is it this directory's LOCK, open for reading and writing? 65 with the remedy where not. */
static int check_fd(const char *dir, int fd)
{
    struct stat theirs, ours;
    const char *why = NULL;
    int lock = -1, flags = -1;
    int rc = open_lock(dir, &lock);
    if (rc == SHALE_OK) {
        rc = os_stat(lock, &ours);
    }
    os_close(&lock);
    if (rc != SHALE_OK) {
        return failure(dir, rc);
    }
    if (fstat(fd, &theirs) != 0 || theirs.st_dev != ours.st_dev || theirs.st_ino != ours.st_ino) {
        why = "is another file";
    } else if ((flags = fcntl(fd, F_GETFL)) < 0 || (flags & O_ACCMODE) != O_RDWR) {
        why = "is not open for reading and writing";
    }
    return why == NULL ? 0 : bad_fd(dir, fd, why);
}

static int open_both(int argc, char **argv, enum command command, struct request *r, shale_lockq **q, int *fd)
{
    int status = request_parse(argc, argv, command, r);
    if (status == 0) {
        status = parse_fd(argv[0], r, fd);
    }
    if (status == 0) {
        status = open_queue(r->target.dir, q);
    }
    return status == 0 ? check_fd(r->target.dir, *fd) : status;
}

int cmd_lock(int argc, char **argv)
{
    struct request r;
    shale_lockq *q = NULL;
    int fd;
    uint64_t number;
    int status = open_both(argc, argv, CMD_LOCK, &r, &q, &fd);
    if (status == 0) {
        (void)acquire(&r, q, fd, getppid(), -1, &number, &status);
    }
    shale_lockq_close(q);
    return status;
}

int cmd_unlock(int argc, char **argv)
{
    struct request r;
    shale_lockq *q = NULL;
    int fd;
    int status = open_both(argc, argv, CMD_UNLOCK, &r, &q, &fd);
    if (status == 0) {
        int rc = shale_lockq_release_fd(q, r.target.name, fd);
        status = rc == SHALE_OK ? 0 : failure(r.target.dir, rc);
        /* The descriptor is the directory's LOCK: what is wrong with it is that it does not hold. */
        status = rc == SHALE_INVALID ? EXIT_DESCRIPTOR : status;
    }
    shale_lockq_close(q);
    return status;
}

int cmd_path(int argc, char **argv)
{
    struct request r;
    shale_lockq *q = NULL;
    int status = request_parse(argc, argv, CMD_PATH, &r);
    if (status == 0 && r.rest_count > 0) {
        status = usage_error("path: one directory is needed");
    }
    if (status == 0) {
        status = open_queue(r.target.dir, &q); /* makes the file where it is missing, with the right mode */
    }
    if (status == 0) {
        size_t size = strlen(r.target.dir);
        (void)printf("%s%sLOCK\n", r.target.dir, r.target.dir[size - 1] == '/' ? "" : "/");
        status = flush_output();
    }
    shale_lockq_close(q);
    return status;
}

/* Has the lock for a moment, in its turn: then it is free. */
int cmd_wait(int argc, char **argv)
{
    struct request r;
    shale_lockq *q = NULL;
    int fd = -1;
    uint64_t number;
    int status = request_parse(argc, argv, CMD_WAIT, &r);
    if (status == 0 && r.rest_count > 0) {
        status = usage_error("wait: one directory is needed");
    }
    if (status == 0) {
        status = open_queue(r.target.dir, &q);
    }
    if (status == 0) {
        int rc = open_lock(r.target.dir, &fd);
        if (rc != SHALE_OK) {
            status = failure(r.target.dir, rc);
        } else if (acquire(&r, q, fd, 0, -1, &number, &status)) {
            (void)shale_lockq_release_fd(q, r.target.name, fd);
        }
    }
    os_close(&fd);
    shale_lockq_close(q);
    return status;
}
