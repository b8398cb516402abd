/* Three fences, since a parser of archives is the classic way in: Landlock bounds the files, a
 * seccomp list forbids what no unpacking needs, and rlimits bound what is left. */
#include "shim/unpack_sandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

static int set_limits(int64_t max_file_bytes)
{
	const struct {
		__rlimit_resource_t resource;
		rlim_t value;
	} limits[] = {
		{RLIMIT_CPU, 900},
		{RLIMIT_FSIZE, (rlim_t)max_file_bytes},
		{RLIMIT_CORE, 0},
		{RLIMIT_NOFILE, 96},
#if !defined(__SANITIZE_ADDRESS__) /* a sanitizer maps terabytes of addresses */
#if !defined(__has_feature)
		{RLIMIT_AS, (rlim_t)1 << 30},
#elif !__has_feature(address_sanitizer)
		{RLIMIT_AS, (rlim_t)1 << 30},
#endif
#endif
	};
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
		struct rlimit l = {limits[i].value, limits[i].value};
		if (setrlimit(limits[i].resource, &l) < 0)
			return -errno;
	}
	return 0;
}

/* true when the kernel holds it from now on. */
static bool landlock(int dir_fd)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 2) /* hard links between directories need version 2 */
		return false;
	uint64_t all = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
	all |= LANDLOCK_ACCESS_FS_REFER | (abi >= 3 ? LANDLOCK_ACCESS_FS_TRUNCATE : 0);
	struct landlock_ruleset_attr attr = {.handled_access_fs = all};
	struct landlock_path_beneath_attr rule = {
		.parent_fd = dir_fd,
		.allowed_access =
			all & (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |
				      LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
				      LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |
				      LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER |
				      LANDLOCK_ACCESS_FS_TRUNCATE),
	};
	int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
	if (fd < 0)
		return false;
	bool held = syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0 &&
		    syscall(SYS_landlock_restrict_self, fd, 0) == 0;
	close(fd);
	return held;
}

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

static int forbid_syscalls(void)
{
#ifdef ARCH
	static const int forbidden[] = {SYS_execve, SYS_execveat, SYS_ptrace, SYS_socket,
		SYS_connect, SYS_bind, SYS_kill, SYS_tkill, SYS_mount, SYS_umount2, SYS_pivot_root,
		SYS_setns, SYS_unshare, SYS_bpf, SYS_keyctl, SYS_add_key, SYS_request_key,
		SYS_process_vm_readv, SYS_process_vm_writev, SYS_perf_event_open, SYS_userfaultfd,
		SYS_io_uring_setup, SYS_pidfd_open, SYS_pidfd_getfd, SYS_pidfd_send_signal,
		SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_reboot,
		SYS_swapon, SYS_swapoff, SYS_mknodat, SYS_open_by_handle_at, SYS_setuid, SYS_setgid,
		SYS_setresuid, SYS_setresgid, SYS_clone3};
	enum { N = sizeof forbidden / sizeof forbidden[0] };
	struct sock_filter code[N + 5] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 0, N + 1),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	for (int i = 0; i < N; i++)
		code[3 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
			(unsigned)forbidden[i], (unsigned char)(N - i), 0);
	code[N + 3] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[N + 4] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	struct sock_fprog program = {N + 5, code};
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
#else
	return 0;
#endif
}

int bt_unpack_confine(int dir_fd, int64_t max_file_bytes, int *ret_confined, const char **what)
{
	*what = "set limits";
	int r = set_limits(max_file_bytes);
	if (r < 0)
		return r;
	*what = "give up privileges";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	bool confined = landlock(dir_fd);
	if (!confined && geteuid() == 0)
		confined = fchdir(dir_fd) == 0 && chroot(".") == 0 && chdir("/") == 0;
	*what = "forbid system calls";
	r = forbid_syscalls();
	if (r < 0)
		return r;
	*ret_confined = confined;
	return 0;
}
