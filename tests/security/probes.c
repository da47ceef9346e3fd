/* Attempts to leave a sandbox, one a name: `probes NAME ARGUMENT...`.
 *
 * Prints `open` when the attempt went through, `refused ERRNO` when it did not, and exits with 0 in both cases.
 * Nothing here does harm where it is let through: values are written back as they were read, commands that cannot
 * be valid show that they were listened to, and files are the caller's own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* Calls that the C library may be too old to name; the numbers are the same on every architecture. */
enum {
    NR_OPEN_TREE = 428, NR_FSOPEN = 430, NR_FSCONFIG = 431, NR_FSMOUNT = 432, NR_PIDFD_OPEN = 434,
    NR_CLONE3 = 435, NR_PIDFD_GETFD = 438, NR_MOUNT_SETATTR = 442, NR_IO_URING_SETUP = 425,
    NR_STATMOUNT = 457, NR_LISTMOUNT = 458
};

static char *const *arg;

static long number(int position) { return strtol(arg[position], NULL, 0); }

static int result(long returned) { return returned < 0 ? -errno : 0; }

/* A call that was listened to, and then found to make no sense. */
static int reached(long returned, int expected) {
    return returned < 0 && errno == expected ? 0 : result(returned);
}

/* Run something in a process of its own; a signal that ends it is a refusal. */
static int apart(int (*body)(void)) {
    pid_t child = fork();
    if (child < 0) return -errno;
    if (child == 0) _exit(-body() & 0xff);
    int status;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? -ECANCELED : -WEXITSTATUS(status);
}

/* Namespaces */

static int p_unshare(void) { return result(unshare(number(0))); }

static int p_clone(void) {
    long child = syscall(SYS_clone, number(0) | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return result(child);
}

static int p_clone3(void) {
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; } how = {
        .flags = number(0), .exit_signal = SIGCHLD };
    long child = syscall(NR_CLONE3, &how, sizeof how);
    if (child == 0) _exit(0);
    return result(child);
}

static int p_setns(void) {
    int space = open(arg[0], O_RDONLY);
    return space < 0 ? -errno : result(setns(space, 0));
}

#if defined(__x86_64__)
/* Have a tracer change a harmless call into unshare after the kernel has looked at it once. */
static int p_ptrace_bypass(void) {
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        syscall(SYS_getppid);
        _exit(0);
    }
    int status;
    struct user_regs_struct registers;
    waitpid(child, &status, 0);
    if (ptrace(PTRACE_SYSCALL, child, 0, 0) < 0) return -errno;
    waitpid(child, &status, 0);
    if (ptrace(PTRACE_GETREGS, child, 0, &registers) < 0) return -errno;
    registers.orig_rax = SYS_unshare;
    registers.rdi = CLONE_NEWUSER;
    ptrace(PTRACE_SETREGS, child, 0, &registers);
    ptrace(PTRACE_SYSCALL, child, 0, 0);
    waitpid(child, &status, 0);
    ptrace(PTRACE_GETREGS, child, 0, &registers);
    kill(child, SIGKILL);
    return (long)registers.rax < 0 ? (int)registers.rax : 0;
}

static int int80(void) {
    int returned;
    __asm__ volatile("int $0x80" : "=a"(returned) : "a"(310), "b"(CLONE_NEWUSER) : "memory");
    return returned;
}
static int p_int80(void) { return apart(int80); }

static int x32(void) { return result(syscall(0x40000000 | SYS_unshare, CLONE_NEWUSER)); }
static int p_x32(void) { return apart(x32); }
#else
static int p_ptrace_bypass(void) { return -ENOSYS; }
static int p_int80(void) { return -ENOSYS; }
static int p_x32(void) { return -ENOSYS; }
#endif

/* Mounts */

static int p_mount(void) {
    return result(mount(arg[0], arg[1], arg[2], number(3), arg[4] && *arg[4] ? arg[4] : NULL));
}
static int p_umount(void) { return result(umount2(arg[0], MNT_DETACH)); }
static int p_chroot(void) { return result(chroot(arg[0])); }
static int p_pivot_root(void) {
    if (chdir(arg[0])) return -errno;
    return result(syscall(SYS_pivot_root, ".", "."));
}
static int p_fsopen(void) {
    int context = syscall(NR_FSOPEN, "tmpfs", 0);
    if (context < 0) return -errno;
    if (syscall(NR_FSCONFIG, context, 6, NULL, NULL, 0) < 0) return -errno;
    return result(syscall(NR_FSMOUNT, context, 0, 0));
}
static int p_open_tree(void) { return result(syscall(NR_OPEN_TREE, AT_FDCWD, arg[0], 1)); }
static int p_mount_setattr(void) {
    uint64_t attributes[4] = { 8, 0, 0, 0 };  /* noexec */
    return result(syscall(NR_MOUNT_SETATTR, AT_FDCWD, arg[0], 0, attributes, sizeof attributes));
}
static int p_listmount(void) {
    struct { uint32_t size, spare; uint64_t mount, parameter; } request = { 24, 0, UINT64_MAX, 0 };
    uint64_t found[4];
    return result(syscall(NR_LISTMOUNT, &request, found, 4, 0));
}

/* The kernel */

static int p_add_key(void) { return result(syscall(SYS_add_key, "user", "probe", "x", 1, -2)); }
static int p_keyctl(void) { return reached(syscall(SYS_keyctl, 0, -3, 0), ENOKEY); }
static int p_request_key(void) { return reached(syscall(SYS_request_key, "user", "no-such", NULL, 0), ENOKEY); }
static int p_bpf(void) {
    uint32_t attributes[32] = { 2, 4, 4, 1 };
    return result(syscall(SYS_bpf, 0, attributes, sizeof attributes));
}
static int p_perf(void) {
    struct perf_event_attr event = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof event, .config = PERF_COUNT_SW_CPU_CLOCK, .exclude_kernel = 1 };
    return result(syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
}
static int p_io_uring(void) {
    char parameters[256] = { 0 };
    return result(syscall(NR_IO_URING_SETUP, 1, parameters));
}
static int p_userfaultfd(void) { return result(syscall(SYS_userfaultfd, 1)); }
static int p_fanotify(void) { return result(syscall(SYS_fanotify_init, 0x200, O_RDONLY)); }
static int p_kcmp(void) { return result(syscall(SYS_kcmp, getpid(), getpid(), 1, 0, 0)); }
static int p_move_pages(void) { return result(syscall(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0)); }
static int p_personality(void) { return result(syscall(SYS_personality, READ_IMPLIES_EXEC)); }
static int p_name_to_handle(void) {
    struct { struct file_handle head; char bytes[128]; } handle = { .head.handle_bytes = 128 };
    int mount_id;
    return reached(name_to_handle_at(AT_FDCWD, "/", &handle.head, &mount_id, 0), EOPNOTSUPP);
}
static int p_open_by_handle(void) {
    struct { struct file_handle head; char bytes[8]; } handle = { .head = { 8, 1 }, .bytes = { 2 } };
    int root = open("/", O_RDONLY);
    if (open_by_handle_at(root, &handle.head, O_RDONLY) >= 0) return 0;
    return errno == ESTALE || errno == EINVAL || errno == ENOENT ? 0 : -errno;
}
static int p_init_module(void) {
    if (syscall(SYS_init_module, "x", 1, "") >= 0) return 0;
    return errno == EPERM || errno == ENOSYS ? -errno : 0;
}
static int p_finit_module(void) {
    if (syscall(SYS_finit_module, -1, "", 0) >= 0) return 0;
    return errno == EPERM || errno == ENOSYS ? -errno : 0;
}
static int p_delete_module(void) { return reached(syscall(SYS_delete_module, "no_such", O_NONBLOCK), ENOENT); }
static int p_kexec(void) { return reached(syscall(SYS_kexec_load, 0, 0, NULL, -1L), EINVAL); }
static int p_reboot(void) { return reached(syscall(SYS_reboot, 0, 0, 0, NULL), EINVAL); }
static int p_swapon(void) { return reached(syscall(SYS_swapon, "/no/such", 0), ENOENT); }
static int p_acct(void) { return reached(syscall(SYS_acct, "/no/such"), ENOENT); }
static int p_syslog(void) {
    char text[64];
    return result(syscall(SYS_syslog, 3, text, sizeof text));
}
#if defined(__x86_64__)
static int p_iopl(void) { return result(syscall(SYS_iopl, 3)); }
static int p_ioperm(void) { return result(syscall(SYS_ioperm, 0x80, 1, 1)); }
#else
static int p_iopl(void) { return -ENOSYS; }
static int p_ioperm(void) { return -ENOSYS; }
#endif
static int p_clock_settime(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return result(clock_settime(CLOCK_REALTIME, &now));
}
static int p_settimeofday(void) {
    struct timeval now;
    gettimeofday(&now, NULL);
    return result(settimeofday(&now, NULL));
}
static int p_adjtimex(void) {
    struct timex clock = { 0 };
    if (adjtimex(&clock) < 0) return -errno;
    clock.modes = ADJ_FREQUENCY;
    return result(adjtimex(&clock));
}
static int p_sethostname(void) {
    struct utsname names;
    uname(&names);
    return result(sethostname(names.nodename, strlen(names.nodename)));
}
static int p_setdomainname(void) {
    struct utsname names;
    uname(&names);
    return result(setdomainname(names.domainname, strlen(names.domainname)));
}
static int p_hostname_is(void) {
    struct utsname names;
    uname(&names);
    return strcmp(names.nodename, arg[0]) ? -ENOENT : 0;
}

/* Privileges */

static int p_capset(void) {
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &head, data) < 0) return -errno;
    data[0].permitted |= 1 << CAP_SYS_ADMIN;
    data[0].effective |= 1 << CAP_SYS_ADMIN;
    return result(syscall(SYS_capset, &head, data));
}
static int p_bounding(void) { return prctl(PR_CAPBSET_READ, number(0)) == 1 ? 0 : -EPERM; }
static int p_securebits(void) { return result(prctl(PR_SET_SECUREBITS, prctl(PR_GET_SECUREBITS))); }
static int p_new_privileges(void) { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) ? -EPERM : 0; }
static int p_euid(void) { return geteuid() == 0 ? 0 : -EPERM; }
static int p_effective(void) {
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &head, data) < 0) return -errno;
    return data[0].effective & (1u << number(0)) ? 0 : -EPERM;
}
static int p_file_caps(void) {
    /* Version 2, effective, CAP_CHOWN. */
    uint32_t value[5] = { 0x02000001, 1, 0, 0, 0 };
    int file = open(arg[0], O_CREAT | O_WRONLY, 0755);
    if (file < 0) return -errno;
    return result(fsetxattr(file, "security.capability", value, sizeof value, 0));
}
static int p_setuid(void) { return result(setresuid(number(0), number(0), number(0))); }
static int p_chown(void) {
    int file = open(arg[0], O_CREAT | O_WRONLY, 0600);
    return file < 0 ? -errno : result(fchown(file, number(1), -1));
}
static int p_mknod(void) {
    if (mknod(arg[0], number(1) | 0600, makedev(number(2), number(3)))) return -errno;
    unlink(arg[0]);
    return 0;
}
static int p_nice(void) { return result(setpriority(PRIO_PROCESS, 0, -5)); }
static int p_realtime(void) {
    struct sched_param priority = { .sched_priority = 1 };
    return result(sched_setscheduler(0, SCHED_FIFO, &priority));
}
static int p_ioprio(void) { return result(syscall(SYS_ioprio_set, 1, 0, 1 << 13)); }

/* Files */

static int p_open(void) {
    int file = open(arg[0], number(1) | O_NONBLOCK | O_NOCTTY);
    return result(file);
}
static int p_read(void) {
    char bytes[8];
    int file = open(arg[0], O_RDONLY | O_NONBLOCK);
    if (file < 0) return -errno;
    ssize_t got = read(file, bytes, sizeof bytes);
    return got > 0 ? 0 : got < 0 ? -errno : -ENODATA;
}
static int p_write_back(void) {
    static char value[4096];
    int file = open(arg[0], O_RDONLY);
    if (file < 0) return -errno;
    ssize_t got = read(file, value, sizeof value);
    close(file);
    if (got < 0) return -errno;
    file = open(arg[0], O_WRONLY);
    if (file < 0) return -errno;
    return result(write(file, value, got));
}
static int p_list(void) {
    DIR *directory = opendir(arg[0]);
    if (!directory) return -errno;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.') return 0;
    return -ENODATA;
}
static int p_mkdir(void) {
    if (mkdir(arg[0], 0755)) return -errno;
    rmdir(arg[0]);
    return 0;
}
static int p_link(void) {
    if (link(arg[0], arg[1])) return -errno;
    unlink(arg[1]);
    return 0;
}

/* For every process that can be seen, a path below its root, its directory and its descriptors. */
static int p_find(void) {
    static const char *const ways[] = { "root", "cwd", "cwd/..", "root/..", "cwd/../../../../../../../.." };
    char path[PATH_MAX];
    if (access(arg[0], F_OK) == 0) return 0;
    DIR *processes = opendir("/proc");
    if (!processes) return -errno;
    for (struct dirent *entry; (entry = readdir(processes));) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
        for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
            snprintf(path, sizeof path, "/proc/%s/%s%s", entry->d_name, ways[way], arg[0]);
            if (access(path, F_OK) == 0) return 0;
        }
        for (int descriptor = 0; descriptor < 64; descriptor++) {
            snprintf(path, sizeof path, "/proc/%s/fd/%d/../../../../../../..%s", entry->d_name, descriptor, arg[0]);
            if (access(path, F_OK) == 0) return 0;
        }
    }
    return -ENOENT;
}
static int p_descriptors(void) {
    for (int descriptor = 3; descriptor < 4096; descriptor++)
        if (fcntl(descriptor, F_GETFD) >= 0) return 0;
    return -EBADF;
}
/* Descriptors of other processes that lead to something, such as the init's. */
static int p_descriptors_of(void) {
    char path[PATH_MAX], target[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%s/fd", arg[0]);
    DIR *list = opendir(path);
    if (!list) return -errno;
    for (struct dirent *entry; (entry = readdir(list));) {
        ssize_t size = readlinkat(dirfd(list), entry->d_name, target, sizeof target - 1);
        if (size <= 0) continue;
        target[size] = 0;
        if (target[0] == '/' && strncmp(target, "/dev/", 5) && strncmp(target, "/proc/", 6)) return 0;
    }
    return -ENOENT;
}
static int p_environment(void) {
    static char text[1 << 20];
    char path[PATH_MAX];
    DIR *processes = opendir("/proc");
    if (!processes) return -errno;
    for (struct dirent *entry; (entry = readdir(processes));) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
        snprintf(path, sizeof path, "/proc/%s/environ", entry->d_name);
        int file = open(path, O_RDONLY);
        if (file < 0) continue;
        ssize_t size = read(file, text, sizeof text);
        close(file);
        if (size > 0 && memmem(text, size, arg[0], strlen(arg[0]))) return 0;
    }
    return -ENOENT;
}
/* Open the program of a process that is not of this root for writing, as soon as it lets go of it. */
static int p_overwrite(void) {
    char path[PATH_MAX], target[PATH_MAX], again[64];
    struct timespec start, now;
    int seen = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        DIR *processes = opendir("/proc");
        if (!processes) return -errno;
        for (struct dirent *entry; (entry = readdir(processes));) {
            if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            ssize_t size = readlink(path, target, sizeof target - 1);
            if (size <= 0) continue;
            target[size] = 0;
            if (*arg[0] ? strcmp(target, arg[0]) != 0 : access(target, F_OK) == 0) continue;
            int file = open(path, O_PATH);
            if (file < 0) continue;
            seen = 1;
            snprintf(again, sizeof again, "/proc/self/fd/%d", file);
            for (int attempt = 0; attempt < 200; attempt++) {
                if (open(again, O_WRONLY) >= 0) return 0;
                if (errno != ETXTBSY) break;
                usleep(2000);
            }
            close(file);
        }
        closedir(processes);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < number(1));
    return seen ? -EACCES : -ENOENT;
}

/* Processes outside */

static int p_kill(void) { return result(kill(number(0), 0)); }
static int p_pidfd(void) { return result(syscall(NR_PIDFD_OPEN, number(0), 0)); }
static int p_ptrace(void) { return result(ptrace(PTRACE_SEIZE, number(0), 0, 0)); }
static int p_vm_read(void) {
    char byte;
    struct iovec here = { &byte, 1 }, there = { NULL, 1 };
    return reached(process_vm_readv(number(0), &here, 1, &there, 1, 0), EFAULT);
}
static int p_pidfd_getfd(void) {
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    int handle = syscall(NR_PIDFD_OPEN, child, 0);
    int outcome = handle < 0 ? -errno : result(syscall(NR_PIDFD_GETFD, handle, 0, 0));
    kill(child, SIGKILL);
    return outcome;
}
static int p_shm(void) { return result(shmget(number(0), 0, 0)); }
static int p_mq(void) { return result(mq_open(arg[0], O_RDONLY)); }

/* Networks */

static int p_socket(void) {
    /* The first argument in full width: the kernel looks at half of it. */
    return result(syscall(SYS_socket, strtoul(arg[0], NULL, 0), number(1), number(2)));
}
static int connect_to(int type) {
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(number(1)) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(number(1)) };
    int is_v6 = strchr(arg[0], ':') != NULL;
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, arg[0], is_v6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1)
        return -EINVAL;
    int channel = socket(is_v6 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK, 0);
    if (channel < 0) return -errno;
    if (connect(channel, is_v6 ? (void *)&v6 : (void *)&v4, is_v6 ? sizeof v6 : sizeof v4) == 0) return 0;
    if (errno != EINPROGRESS) return -errno;
    struct pollfd waiting = { channel, POLLOUT, 0 };
    if (poll(&waiting, 1, 2000) != 1) return -ETIMEDOUT;
    int problem;
    socklen_t size = sizeof problem;
    getsockopt(channel, SOL_SOCKET, SO_ERROR, &problem, &size);
    return -problem;
}
static int p_tcp(void) { return connect_to(SOCK_STREAM); }
static int p_udp(void) { return connect_to(SOCK_DGRAM); }
static int p_unix(void) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int offset = arg[0][0] == '@';
    strncpy(address.sun_path + offset, arg[0] + offset, sizeof address.sun_path - 2);
    int channel = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + strlen(arg[0]);
    return result(connect(channel, (void *)&address, size));
}
static int p_interface(void) {
    struct ifreq request = { .ifr_name = "lo" };
    int control = socket(AF_INET, SOCK_DGRAM, 0);
    if (ioctl(control, SIOCGIFFLAGS, &request) < 0) return -errno;
    request.ifr_flags |= IFF_UP;
    return result(ioctl(control, SIOCSIFFLAGS, &request));
}
/* Ask the kernel for an address of one's own on `lo`. */
static int p_address(void) {
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg body;
        struct rtattr attribute;
        uint32_t address;
    } request = {
        .head = { sizeof request, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, 1, 0 },
        .body = { .ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = 1 },
        .attribute = { 8, IFA_LOCAL },
        .address = inet_addr(arg[0]),
    };
    struct { struct nlmsghdr head; struct nlmsgerr body; char rest[256]; } answer;
    int channel = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (channel < 0 || send(channel, &request, sizeof request, 0) < 0) return -errno;
    if (recv(channel, &answer, sizeof answer, 0) < 0) return -errno;
    return answer.body.error;
}
/* Make a table of nftables: who may do that may also take the one away that redirects. */
static int p_netfilter(void) {
    struct part { struct nlmsghdr head; struct { uint8_t family, version; uint16_t resource; } body; };
    struct {
        struct part begin, table;
        struct { uint16_t size, tag; char name[8]; } attribute;
        struct part end;
    } request = {
        .begin = { { sizeof(struct part), 0x10, NLM_F_REQUEST, 1, 0 }, { 0, 0, htons(10) } },
        .table = { { sizeof(struct part) + 12, 10 << 8, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, 2, 0 }, { 1, 0, 0 } },
        .attribute = { 10, 1, "probe" },
        .end = { { sizeof(struct part), 0x11, NLM_F_REQUEST, 3, 0 }, { 0, 0, htons(10) } },
    };
    struct { struct nlmsghdr head; struct nlmsgerr body; char rest[256]; } answer;
    int channel = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    if (channel < 0 || send(channel, &request, sizeof request, 0) < 0) return -errno;
    if (recv(channel, &answer, sizeof answer, 0) < 0) return -errno;
    return answer.body.error;
}
static int p_metadata(void) {
    /* A caller with a network of its own, and in no other, says so: then the address is made to be there. */
    if (arg[2]) {
        int outcome = p_interface();
        if (!outcome) outcome = p_address();
        if (outcome) return outcome;
    }
    return p_udp();
}
static int p_tiocsti(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master)) return -errno;
    setsid();
    int terminal = open(ptsname(master), O_RDWR);
    if (terminal < 0) return -errno;
    ioctl(terminal, TIOCSCTTY, 0);
    return result(syscall(SYS_ioctl, terminal, strtoul(arg[0], NULL, 0), "x"));
}

/* Bombs: each stops at a number given by the caller, who has set a limit below it. */

static int p_forks(void) {
    long most = number(0);
    for (long count = 0; count < most; count++) {
        pid_t child = fork();
        if (child < 0) return -errno;
        if (child == 0) {
            if (arg[1]) _exit(0);  /* A zombie, which nobody collects. */
            pause();
        }
    }
    return 0;
}
static int p_memory(void) {
    long most = number(0);
    struct rlimit outer = { most * 2, most * 2 };
    setrlimit(RLIMIT_AS, &outer);
    for (long done = 0; done < most; done += 1 << 20) {
        char *piece = malloc(1 << 20);
        if (!piece) return -errno;
        memset(piece, 1, 1 << 20);
    }
    return 0;
}
static int p_fill(void) {
    static char piece[1 << 16];
    long most = number(1);
    int file = open(arg[0], O_CREAT | O_WRONLY, 0600);
    if (file < 0) return -errno;
    memset(piece, 1, sizeof piece);
    for (long done = 0; done < most;) {
        ssize_t written = write(file, piece, sizeof piece);
        if (written < 0) return -errno;
        done += written;
    }
    return 0;
}
static int p_inodes(void) {
    char path[PATH_MAX];
    long most = number(1);
    for (long count = 0; count < most; count++) {
        snprintf(path, sizeof path, "%s/%ld", arg[0], count);
        if (mknod(path, S_IFREG | 0600, 0)) return -errno;
    }
    return 0;
}
static int p_files(void) {
    long most = number(0);
    for (long count = 0; count < most; count++)
        if (open("/dev/null", O_RDONLY) < 0) return -errno;
    return 0;
}
/* What the kernel says the limits are: file system bytes, its files, processes, open files. */
static int p_limits(void) {
    struct statvfs disk;
    struct rlimit processes, files;
    if (statvfs(arg[0], &disk)) return -errno;
    getrlimit(RLIMIT_NPROC, &processes);
    getrlimit(RLIMIT_NOFILE, &files);
    printf("%lld %lld %lld %lld\n", (long long)disk.f_blocks * disk.f_frsize, (long long)disk.f_files,
           (long long)processes.rlim_cur, (long long)files.rlim_max);
    return 0;
}

#define PROBE(name) { #name, p_##name }
static const struct { const char *name; int (*run)(void); } probes[] = {
    PROBE(unshare), PROBE(clone), PROBE(clone3), PROBE(setns), PROBE(ptrace_bypass), PROBE(int80), PROBE(x32),
    PROBE(mount), PROBE(umount), PROBE(chroot), PROBE(pivot_root), PROBE(fsopen), PROBE(open_tree),
    PROBE(mount_setattr), PROBE(listmount), PROBE(add_key), PROBE(keyctl), PROBE(request_key), PROBE(bpf),
    PROBE(perf), PROBE(io_uring), PROBE(userfaultfd), PROBE(fanotify), PROBE(kcmp), PROBE(move_pages),
    PROBE(personality), PROBE(name_to_handle), PROBE(open_by_handle), PROBE(init_module), PROBE(finit_module),
    PROBE(delete_module), PROBE(kexec), PROBE(reboot), PROBE(swapon), PROBE(acct), PROBE(syslog), PROBE(iopl),
    PROBE(ioperm), PROBE(clock_settime), PROBE(settimeofday), PROBE(adjtimex), PROBE(sethostname),
    PROBE(setdomainname), PROBE(hostname_is), PROBE(capset), PROBE(bounding), PROBE(securebits),
    PROBE(new_privileges), PROBE(euid), PROBE(effective), PROBE(file_caps), PROBE(setuid), PROBE(chown),
    PROBE(mknod), PROBE(nice), PROBE(realtime), PROBE(ioprio), PROBE(open), PROBE(read), PROBE(write_back),
    PROBE(list), PROBE(mkdir), PROBE(link), PROBE(find), PROBE(descriptors), PROBE(descriptors_of),
    PROBE(environment), PROBE(overwrite), PROBE(kill), PROBE(pidfd), PROBE(ptrace), PROBE(vm_read),
    PROBE(pidfd_getfd), PROBE(shm), PROBE(mq), PROBE(socket), PROBE(tcp), PROBE(udp), PROBE(unix),
    PROBE(interface), PROBE(address), PROBE(netfilter), PROBE(metadata), PROBE(tiocsti), PROBE(forks),
    PROBE(memory), PROBE(fill), PROBE(inodes), PROBE(files), PROBE(limits),
};

int main(int count, char **words) {
    if (count < 2) return 2;
    arg = words + 2;
    alarm(5);
    for (unsigned each = 0; each < sizeof probes / sizeof *probes; each++) {
        if (strcmp(probes[each].name, words[1])) continue;
        int outcome = probes[each].run();
        if (outcome == 0) printf("open\n");
        else printf("refused %s\n", strerrorname_np(-outcome) ? strerrorname_np(-outcome) : "ESIGNAL");
        return 0;
    }
    return 2;
}
