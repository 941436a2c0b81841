package socket

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// keep is a service manager: it has a descriptor of its own.
func keep(t *testing.T, s *Sockets) (f *os.File) {
	t.Helper()
	require.NoError(t, s.Keep(func(c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			copied, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
			require.NoError(t, err)
			f = os.NewFile(uintptr(copied), "dhcp")
		})
	}))
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// What comes while no process reads waits, in order, with its interface and its time.
func TestKernelTakeOver(t *testing.T) {
	l := newLab(t)
	ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
	require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	require.NoError(t, hb.IP("addr", "add", "192.0.2.2/24", "dev", "eth0"))
	a, b := openStation(t, ha), openStation(t, hb)
	kept := keep(t, b.Sockets)
	out, in := a.NewSender(), b.NewReader()
	require.Eventually(t, func() bool { // the kernel begins to note times a little later
		require.NoError(t, out.Send(&Delivery{Way: wire.WayUnicast, To: netip.AddrPortFrom(host(2), 67)}, []byte("x")))
		require.Eventually(t, func() bool {
			waiting, err := b.Waiting()
			return err == nil && waiting
		}, 10*time.Second, time.Millisecond)
		there := time.Now().UnixNano()
		n, err := in.Read()
		return err == nil && n == 1 && in.Packet(0).Came <= there
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, b.Close())
	before := time.Now().UnixNano()
	for i := range 100 {
		require.NoError(t, out.Send(&Delivery{Way: wire.WayUnicast, To: netip.AddrPortFrom(host(2), 67)}, []byte(strconv.Itoa(i))))
	}
	after := time.Now().UnixNano()
	var s *Sockets
	require.NoError(t, hb.Do(func() (err error) {
		s, err = TakeOver(netip.MustParseAddrPort("0.0.0.0:67"), kept)
		return err
	}))
	defer s.Close()
	require.NoError(t, kept.Close(), "it is not needed any more")
	assert.Equal(t, "0.0.0.0:67", s.LocalAddr().String())
	assert.NotNil(t, s.ARP())
	r := s.NewReader()
	for i := 0; i < 100; {
		n, err := r.Read()
		require.NoError(t, err)
		for k := range n {
			g := r.Packet(k)
			require.Equal(t, strconv.Itoa(i), string(g.Data))
			require.Equal(t, b.ifindex, g.Ifindex)
			require.Equal(t, host(2), g.To)
			require.GreaterOrEqual(t, g.Came, before)
			require.LessOrEqual(t, g.Came, after)
			before = g.Came
			i++
		}
	}
	require.NoError(t, s.NewSender().Send(&Delivery{Way: wire.WayUnicast, To: netip.AddrPortFrom(host(1), 67)}, []byte("answer")))
	assert.Equal(t, "answer", string(a.take(t, a.NewReader()).Data))
	drops, ok := s.Dropped()
	assert.True(t, ok)
	assert.Zero(t, drops)
	s.StopReading()
	_, err := r.Read()
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded, "the runtime waits for the socket, not a thread")
}

// A socket that is not what Open makes is refused, with the reason.
func TestKernelTakeOverRefuses(t *testing.T) {
	l := newLab(t)
	h, elsewhere := addHost(t, l, "a"), addHost(t, l, "b")
	listen := netip.MustParseAddrPort("0.0.0.0:6767")
	open := func(family, kind int, prepare ...func(fd int) error) func() (*os.File, error) {
		return func() (*os.File, error) {
			fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
			for _, p := range prepare {
				if err == nil {
					err = p(fd)
				}
			}
			return os.NewFile(uintptr(fd), "dhcp"), err
		}
	}
	set := func(level, name, value int) func(int) error {
		return func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) }
	}
	info := set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	bind := func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: 6767}) }
	for name, tc := range map[string]struct {
		open func() (*os.File, error)
		at   interface{ Do(func() error) error }
		want string
	}{
		"no socket":         {func() (*os.File, error) { return os.Open(os.DevNull) }, h, "family"},
		"IPv6":              {open(unix.AF_INET6, unix.SOCK_DGRAM), h, "family"},
		"TCP":               {open(unix.AF_INET, unix.SOCK_STREAM), h, "type"},
		"not bound":         {open(unix.AF_INET, unix.SOCK_DGRAM, info), h, "bound to 0.0.0.0:0"},
		"another port":      {open(unix.AF_INET, unix.SOCK_DGRAM, info, func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: 6768}) }), h, "bound to 0.0.0.0:6768, not to 0.0.0.0:6767"},
		"another address":   {open(unix.AF_INET, unix.SOCK_DGRAM, info, func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: 6767, Addr: [4]byte{127, 0, 0, 1}}) }), h, "bound to 127.0.0.1:6767"},
		"shares the port":   {open(unix.AF_INET, unix.SOCK_DGRAM, info, set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), bind), h, "SO_REUSEPORT"},
		"shares addresses":  {open(unix.AF_INET, unix.SOCK_DGRAM, info, set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), bind), h, "SO_REUSEADDR"},
		"no interfaces":     {open(unix.AF_INET, unix.SOCK_DGRAM, bind), h, "IP_PKTINFO"},
		"one interface":     {open(unix.AF_INET, unix.SOCK_DGRAM, info, set(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, 1), bind), h, "another device"},
		"one peer":          {open(unix.AF_INET, unix.SOCK_DGRAM, info, bind, func(fd int) error { return unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}) }), h, "bound to 127.0.0.1:6767"},
		"another namespace": {open(unix.AF_INET, unix.SOCK_DGRAM, info, bind), elsewhere, "another network namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			var f *os.File
			require.NoError(t, tc.at.Do(func() (err error) { f, err = tc.open(); return err }))
			defer f.Close()
			require.NoError(t, h.Do(func() error {
				s, err := TakeOver(listen, f)
				if !assert.ErrorContains(t, err, tc.want) {
					return s.Close()
				}
				return nil
			}))
		})
	}
	t.Run("it fits", func(t *testing.T) {
		require.NoError(t, h.Do(func() error {
			f, err := open(unix.AF_INET, unix.SOCK_DGRAM, info, bind)()
			require.NoError(t, err)
			defer f.Close()
			s, err := TakeOver(listen, f)
			require.NoError(t, err)
			return s.Close()
		}))
	})
}

// BenchmarkRead sends and reads batches, and shows what the time of each packet costs: ns/read is of one packet.
func BenchmarkRead(b *testing.B) {
	for _, stamp := range []bool{false, true} {
		b.Run(fmt.Sprintf("stamped=%t", stamp), func(b *testing.B) {
			s, err := Open(netip.MustParseAddrPort("127.0.0.1:0"))
			require.NoError(b, err)
			defer s.Close()
			if stamp {
				require.NoError(b, s.Keep(func(syscall.RawConn) error { return nil }))
			}
			from, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.LocalAddr()))
			require.NoError(b, err)
			defer from.Close()
			r, data := s.NewReader(), make([]byte, 300)
			var reading time.Duration
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for range BatchSize {
					if _, err := from.Write(data); err != nil {
						b.Fatal(err)
					}
				}
				begin := time.Now()
				for k := 0; k < BatchSize; {
					got, err := r.Read()
					if err != nil {
						b.Fatal(err)
					}
					for i := range got {
						if g := r.Packet(i); stamp != (g.Came != 0) {
							b.Fatal(g.Came)
						}
					}
					k += got
				}
				reading += time.Since(begin)
				n += BatchSize
			}
			b.ReportMetric(float64(reading.Nanoseconds())/float64(n), "ns/read")
		})
	}
}
