/* confine PROGRAM [ARGUMENT ...]: runs a program under the system calls, address
   families and memory rules of systemd/usher.service. The test writes calls.h:
   an ALLOW(nr) for each call, a FAMILY(nr) for each family. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF_NOT_SKIP(value, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, n)
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)
#define ALLOW(nr) IF_NOT_SKIP(nr, 1), RETURN(SECCOMP_RET_ALLOW),
#define FAMILY(nr) IF_NOT_SKIP(nr, 1), RETURN(SECCOMP_RET_ALLOW),

static struct sock_filter calls[] = {
	LOAD(nr),
#define CALLS
#include "calls.h"
#undef CALLS
	RETURN(SECCOMP_RET_ERRNO | EPERM),
};

static struct sock_filter families[] = {
	LOAD(nr),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 1, 0),
	RETURN(SECCOMP_RET_ALLOW),
	LOAD(args[0]), /* its low half on a little-endian machine */
#define FAMILIES
#include "calls.h"
	RETURN(SECCOMP_RET_ERRNO | EAFNOSUPPORT),
};

static int install(struct sock_filter *filter, size_t n)
{
	struct sock_fprog prog = {n, filter};
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: confine PROGRAM [ARGUMENT ...]\n");
		return 2;
	}
	prctl(PR_SET_MDWE, 1, 0, 0, 0); /* before Linux 6.3: nothing */
	if (install(families, sizeof families / sizeof *families) || install(calls, sizeof calls / sizeof *calls)) {
		perror("confine: seccomp");
		return 1;
	}
	execv(argv[1], argv + 1);
	perror(argv[1]);
	return 1;
}
