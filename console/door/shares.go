package door

import "syscall"

// Reserve is how many of the descriptors that a process may have stay free of
// connections at doors: for the ERP, the disk, DHCP, netlink and the child process.
func Reserve(limit uint64) uint64 { return max(limit/4, min(512, limit/2)) }

// Shares returns how many connections each door may have, by what each wants: all of
// it, or its part of what is there, but one at least. No door can use up the part of another.
func Shares(descriptors uint64, wanted ...int) []int {
	sum := uint64(0)
	for _, w := range wanted {
		sum += uint64(w)
	}
	room := descriptors - Reserve(descriptors)
	out := make([]int, len(wanted))
	for i, w := range wanted {
		out[i] = w
		if sum > room {
			out[i] = max(min(w, 1), int(uint64(w)*room/sum))
		}
	}
	return out
}

// Descriptors returns how many this process may have open. The runtime of Go has
// raised that to the hard limit at the start.
func Descriptors() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return min(l.Cur, 1<<20)
}
