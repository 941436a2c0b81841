package socket

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/provision/link/lab"
)

const udpHeader = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"

// udpLine is a line of /proc/net/udp on a host of this byte order.
func udpLine(addr string, port uint16, uid, inode int) string {
	b := netip.MustParseAddr(addr).AsSlice()
	host := ""
	for i := 0; i < len(b); i += 4 {
		host += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b[i:]))
	}
	return fmt.Sprintf("%5d: %s:%04X %s:0000 07 00000000:00000000 00:00000000 00000000 %5d        0 %d 2 0000000000000000 0\n",
		413, host, port, strings.Repeat("0", len(host)), uid, inode)
}

func symlink(to string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestFindRivals(t *testing.T) {
	proc := fstest.MapFS{
		"thread-self/net/udp":  file(udpHeader + udpLine("0.0.0.0", 67, 0, 100) + udpLine("127.0.0.1", 53, 0, 101) + udpLine("192.0.2.1", 67, 4294, 102)),
		"thread-self/net/udp6": file(udpHeader + udpLine("::", 67, 0, 103)),
		"812/comm":             file("dnsmasq\n"),
		"812/fd/0":             symlink("/dev/null"),
		"812/fd/4":             symlink("socket:[100]"),
		"812/fd/5":             symlink("socket:[101]"),
		"813/comm":             file("dnsmasq\n"), // its child has the socket too
		"813/fd/4":             symlink("socket:[100]"),
		"900/comm":             file("kea-dhcp4\n"),
		"900/fd/7":             symlink("socket:[103]"),
		"uptime":               file("1 1\n"),
	}
	found := findRivals(proc, 67)
	assert.Equal(t, []rival{
		{addr: netip.MustParseAddrPort("192.0.2.1:67"), uid: 4294, inode: 102},
		{addr: netip.MustParseAddrPort("0.0.0.0:67"), inode: 100, pid: 812, name: "dnsmasq"},
		{addr: netip.MustParseAddrPort("[::]:67"), inode: 103, pid: 900, name: "kea-dhcp4"},
	}, found)
	assert.Equal(t, `a process of user 4294 that may not be looked at from here at 192.0.2.1:67, dnsmasq (pid 812) at 0.0.0.0:67, `+
		`kea-dhcp4 (pid 900) at [::]:67; "ss -ulpn sport = :67" as root names it`, describeRivals(found, 67))
	assert.Empty(t, findRivals(proc, 68))
	assert.Empty(t, findRivals(fstest.MapFS{}, 67))
	assert.Contains(t, describeRivals(nil, 67), "another DHCP server or relay")
	for i := range 9 {
		found = append(found, rival{addr: netip.AddrPortFrom(host(byte(i)), 67), pid: 900, name: "kea-dhcp4"})
	}
	assert.Contains(t, describeRivals(found, 67), ", 8 more")
}

func FuzzUDPTable(f *testing.F) {
	f.Add([]byte(udpHeader + udpLine("192.0.2.1", 67, 7, 9)))
	f.Add([]byte(udpLine("2001:db8::1", 67, 7, 9)))
	f.Add([]byte("0: 00000000:0043 a b c d e 1 2 3"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, r := range parseUDPTable(text, 67) {
			if r.addr.Port() != 67 || !r.addr.Addr().IsValid() {
				t.Errorf("%+v", r)
			}
		}
	})
}

// Real servers and relays hold the port in different ways: for all addresses,
// for one, for one interface, ready to share it. Each is named; and none of them
// starts beside us.
func TestKernelRefusesToStartBesideAnother(t *testing.T) {
	for _, tc := range []struct {
		name  string
		tools []string
		run   func(dir string) []string
		comm  string
	}{
		{"dnsmasq for all", []string{"dnsmasq"}, func(dir string) []string {
			return []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--dhcp-range=192.0.2.100,192.0.2.120", "--dhcp-leasefile=" + dir + "/leases", "--pid-file=" + dir + "/pid", "--user=root"}
		}, "dnsmasq"},
		{"dnsmasq on one interface", []string{"dnsmasq"}, func(dir string) []string {
			return []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces", "--dhcp-range=192.0.2.100,192.0.2.120", "--dhcp-leasefile=" + dir + "/leases", "--pid-file=" + dir + "/pid", "--user=root"}
		}, "dnsmasq"},
		{"dhcrelay", []string{"dhcrelay"}, func(dir string) []string {
			return []string{"dhcrelay", "-4", "-d", "-i", "eth0", "-pf", dir + "/pid", "198.51.100.5"}
		}, "dhcrelay"},
		{"dhcpd", []string{"dhcpd"}, func(dir string) []string {
			return []string{"dhcpd", "-4", "-f", "-cf", dir + "/dhcpd.conf", "-lf", dir + "/leases", "-pf", dir + "/pid", "eth0"}
		}, "dhcpd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t, tc.tools...)
			router, cpe := addHost(t, l, "r"), addHost(t, l, "c")
			require.NoError(t, l.Wire(router, "eth0", cpe, "eth0"))
			require.NoError(t, router.IP("addr", "add", "192.0.2.5/24", "dev", "eth0"))
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "dhcpd.conf"), []byte("subnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.100 192.0.2.120; }\n"), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "leases"), nil, 0o644))
			start := func() *lab.Process {
				args := tc.run(dir)
				p, err := router.Start(args[0], args[1:]...)
				require.NoError(t, err)
				return p
			}
			var s *Sockets
			open := func() (err error) { s, err = Open(netip.MustParseAddrPort("0.0.0.0:67")); return err }
			other := start()
			require.Eventually(t, func() bool { // without trying: it would find the port taken
				var found []rival
				require.NoError(t, router.Do(func() error { found = findRivals(os.DirFS("/proc"), 67); return nil }))
				return len(found) > 0
			}, 15*time.Second, 20*time.Millisecond, "%s does not listen: %s", tc.comm, other.Log())
			refused := router.Do(open)
			require.ErrorContains(t, refused, fmt.Sprintf("is in use by %s (pid %d) at ", tc.comm, other.PID()))
			other.Kill()
			<-other.Done()

			require.NoError(t, router.Do(open))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			beside := start()
			err := beside.Wait(ctx)
			require.NotErrorIs(t, err, context.DeadlineExceeded, "it runs beside us: %s: %s", tc.comm, beside.Log())
			require.Error(t, err, "%s", beside.Log())
			require.NoError(t, s.Close())
		})
	}
}
