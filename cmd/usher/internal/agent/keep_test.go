package agent

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/config"
)

// keptSocket is a DHCP socket of an earlier agent on loopback, by the name that the service manager has for it.
func keptSocket(t *testing.T, name string) (f *os.File, at netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	f = os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { _ = f.Close() })
	require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	sa, err := unix.Getsockname(fd)
	require.NoError(t, err)
	return f, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
}

// An agent takes the socket that was kept over, and has all dropped that it has no use for; nothing of it ends the start.
func TestKeptDescriptors(t *testing.T) {
	fits, at := keptSocket(t, "dhcp")
	second, secondAt := keptSocket(t, "dhcp")
	unknown, unknownAt := keptSocket(t, "of-a-newer-version")
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	t.Cleanup(func() { _ = null.Close() })
	wrong := os.NewFile(uintptr(mustDup(t, null)), "dhcp")
	copies := func(files ...*os.File) (list []*os.File) {
		for _, f := range files {
			list = append(list, os.NewFile(uintptr(mustDup(t, f)), f.Name()))
		}
		return list
	}
	for name, tc := range map[string]struct {
		kept  []*os.File
		o     Options
		words []string
		at    netip.AddrPort // zero: another one
	}{
		"nothing":            {nil, Options{}, []string{"keep dhcp"}, netip.AddrPort{}},
		"the socket":         {copies(fits), Options{}, nil, at},
		"two of them":        {copies(fits, second), Options{}, []string{"drop dhcp", "keep dhcp"}, at},
		"unknown too":        {copies(unknown, fits), Options{}, []string{"drop of-a-newer-version"}, at},
		"one that is wrong":  {copies(wrong), Options{}, []string{"drop dhcp", "keep dhcp"}, netip.AddrPort{}},
		"wrong before right": {copies(wrong, second), Options{}, []string{"drop dhcp", "keep dhcp"}, secondAt},
		"a dry run":          {copies(fits), Options{DryRun: true}, []string{"drop dhcp"}, netip.AddrPort{}},
	} {
		t.Run(name, func(t *testing.T) {
			service := &told{kept: tc.kept}
			tc.o.Service = service
			d := newDaemon(t, tc.o, "")
			assert.Equal(t, tc.words, service.all())
			switch {
			case tc.o.DryRun:
				assert.False(t, d.dhcp.LocalAddr().IsValid())
			case tc.at.IsValid():
				assert.Equal(t, tc.at, d.dhcp.LocalAddr())
			default:
				assert.NotContains(t, []netip.AddrPort{at, secondAt, unknownAt, {}}, d.dhcp.LocalAddr())
			}
			for _, f := range tc.kept {
				assert.ErrorIs(t, f.Close(), os.ErrClosed)
			}
		})
	}
}

// Where DHCP is switched off the socket of before does not hold the port.
func TestKeptDescriptorsWithoutDHCP(t *testing.T) {
	dir := t.TempDir()
	path := idleConfig(t, dir)
	cfg, err := config.Load(path)
	require.NoError(t, err)
	f, at := keptSocket(t, "dhcp")
	service := &told{kept: []*os.File{f}}
	a, err := New(t.Context(), cfg, Options{Path: path, Service: service, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Stop()) }()
	assert.Equal(t, []string{"drop dhcp"}, service.all())
	free, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	require.NoError(t, err)
	require.NoError(t, free.Close())
}

func mustDup(t *testing.T, f *os.File) int {
	t.Helper()
	c, err := f.SyscallConn()
	require.NoError(t, err)
	fd := -1
	require.NoError(t, c.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }))
	require.NoError(t, err)
	return fd
}
