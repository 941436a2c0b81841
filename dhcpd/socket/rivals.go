package socket

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/netip"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// rival is a UDP socket of somebody else on the port that we want.
type rival struct {
	addr  netip.AddrPort
	uid   uint32
	inode uint64
	pid   int    // 0: not to be seen from here
	name  string // of the process
}

// findRivals looks for sockets on a port in the network namespace of the calling
// thread, and for the processes that have them open. proc is /proc. What cannot
// be read is left out: this is for an error message.
func findRivals(proc fs.FS, port uint16) []rival {
	var found []rival
	for _, file := range []string{"thread-self/net/udp", "thread-self/net/udp6"} {
		text, err := fs.ReadFile(proc, file)
		if err != nil {
			continue
		}
		found = append(found, parseUDPTable(text, port)...)
	}
	if len(found) > 0 {
		nameRivals(proc, found)
	}
	slices.SortFunc(found, func(a, b rival) int {
		return cmp.Or(cmp.Compare(a.pid, b.pid), a.addr.Addr().Compare(b.addr.Addr()), cmp.Compare(a.inode, b.inode))
	})
	return found
}

// parseUDPTable reads /proc/net/udp or udp6 (proc_net(5)): after the number of
// the slot the local address, ..., in the eighth column the user, in the tenth the inode.
func parseUDPTable(text []byte, port uint16) []rival {
	const columnLocal, columnUser, columnInode = 1, 7, 9
	var found []rival
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) <= columnInode {
			continue
		}
		addr, ok := parseProcAddr(f[columnLocal])
		if !ok || addr.Port() != port {
			continue
		}
		uid, err1 := strconv.ParseUint(f[columnUser], 10, 32)
		inode, err2 := strconv.ParseUint(f[columnInode], 10, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		found = append(found, rival{addr: addr, uid: uint32(uid), inode: inode})
	}
	return found
}

// parseProcAddr reads an address such as 0100007F:0043: 32-bit words as the host
// sees them, most significant digit first, and the port.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	p, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

// nameRivals fills in the processes that have the sockets open.
func nameRivals(proc fs.FS, found []rival) {
	links := make(map[string][]int, len(found)) // text of the link: places in found
	for i := range found {
		text := fmt.Sprintf("socket:[%d]", found[i].inode)
		links[text] = append(links[text], i)
	}
	processes, err := fs.ReadDir(proc, ".")
	if err != nil {
		return
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		files, err := fs.ReadDir(proc, p.Name()+"/fd")
		if err != nil {
			continue // gone, or another user's
		}
		for _, f := range files {
			text, err := fs.ReadLink(proc, p.Name()+"/fd/"+f.Name())
			if err != nil {
				continue
			}
			for _, i := range links[text] {
				if found[i].pid != 0 {
					continue // shared by several processes: the first one is its maker as a rule
				}
				comm, _ := fs.ReadFile(proc, p.Name()+"/comm")
				found[i].pid, found[i].name = pid, strings.TrimSpace(string(comm))
			}
		}
	}
}

// describeRivals makes of found who has the port, such as "dnsmasq (pid 812) at 0.0.0.0:67".
func describeRivals(found []rival, port uint16) string {
	if len(found) == 0 {
		return fmt.Sprintf("another DHCP server or relay; \"ss -ulpn sport = :%d\" as root may name it", port)
	}
	const most = 4
	var parts []string
	hidden := false
	for _, r := range found {
		who := ""
		if r.pid != 0 {
			who = fmt.Sprintf("%s (pid %d)", cmp.Or(r.name, "a process"), r.pid)
		} else {
			who, hidden = "a process of user "+userName(r.uid)+" that may not be looked at from here", true
		}
		if text := fmt.Sprintf("%s at %v", who, r.addr); !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	if n := len(parts) - most; n > 0 {
		parts = append(parts[:most], fmt.Sprintf("%d more", n))
	}
	text := strings.Join(parts, ", ")
	if hidden {
		text += fmt.Sprintf("; \"ss -ulpn sport = :%d\" as root names it", port)
	}
	return text
}

// userName returns the name of a user, which is the daemon's as a rule, and its number.
func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		return fmt.Sprintf("%s (%d)", u.Username, uid)
	}
	return strconv.FormatUint(uint64(uid), 10)
}
