package door

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// open serves behind a door on loopback.
func open(t *testing.T, o Options, h http.HandlerFunc) (*Door, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return openAt(t, l, o, h)
}

func openAt(t *testing.T, l net.Listener, o Options, h http.HandlerFunc) (*Door, string) {
	t.Helper()
	d := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- d.Serve(ctx, l, &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.Zero(t, d.Status().Inside)
	})
	return d, l.Addr().String()
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// visitor is one connection of a client.
type visitor struct {
	net.Conn
	r *bufio.Reader
}

func visit(t *testing.T, from, to string) visitor {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}).Dial("tcp", to)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return visitor{c, bufio.NewReader(c)}
}

// ask sends a request and returns the status, or 0 where the connection is closed.
func (v visitor) ask(host string) int {
	if _, err := fmt.Fprintf(v, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return 0
	}
	resp, err := http.ReadResponse(v.r, nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func idle(d *Door) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.idle.Len()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 10*time.Second, time.Millisecond, what)
}

// A full door lets the next one in and ends the longest idle.
func TestFullDoorEndsTheLongestIdle(t *testing.T) {
	d, addr := open(t, Options{Total: 3}, ok)
	var all []visitor
	for i := range 3 {
		all = append(all, visit(t, "127.0.0.1", addr))
		require.Equal(t, 200, all[i].ask("localhost"))
		eventually(t, "idle", func() bool { return idle(d) == i+1 })
	}
	require.Equal(t, 200, all[0].ask("localhost"), "it is the youngest now")
	eventually(t, "idle", func() bool { return idle(d) == 3 })
	require.Equal(t, 200, visit(t, "127.0.0.1", addr).ask("localhost"))
	require.Zero(t, all[1].ask("localhost"), "the longest idle made room")
	require.Equal(t, 200, all[0].ask("localhost"))
	require.Equal(t, 200, all[2].ask("localhost"))
	require.EqualValues(t, 1, d.Status().EndedIdle)
	require.Empty(t, d.Status().Refused)
}

// Who never speaks makes room as well.
func TestTheSilentMakeRoom(t *testing.T) {
	d, addr := open(t, Options{Total: 2}, ok)
	silent := visit(t, "127.0.0.1", addr)
	visit(t, "127.0.0.1", addr)
	eventually(t, "both are inside", func() bool { return d.Status().Inside == 2 })
	require.Equal(t, 200, visit(t, "127.0.0.1", addr).ask("localhost"))
	_, err := silent.r.ReadByte()
	require.Error(t, err)
}

// One who is being answered is not interrupted: the next is refused then.
func TestBusyOnesStay(t *testing.T) {
	hold := make(chan struct{})
	busy := make(chan struct{}, 2)
	refused := make(chan Refusal, 8)
	d, addr := open(t, Options{Total: 2, now: stopped(), Refused: func(why Refusal, _ netip.Addr, _ string) { refused <- why }}, func(w http.ResponseWriter, r *http.Request) {
		busy <- struct{}{}
		<-hold
		ok(w, r)
	})
	codes := make(chan int, 2)
	for range 2 {
		v := visit(t, "127.0.0.1", addr)
		go func() { codes <- v.ask("localhost") }()
		<-busy
	}
	c, err := net.DialTimeout("tcp", addr, 5*time.Second) // the reset may come before this returns
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Equal(t, Full, <-refused)
	close(hold)
	require.Equal(t, 200, <-codes)
	require.Equal(t, 200, <-codes)
	require.EqualValues(t, 1, d.Status().Refused[Full])
}

// stopped is a clock that stands: nothing is stalled.
func stopped() func() time.Time {
	now := time.Unix(1_700_000_000, 0)
	return func() time.Time { return now }
}

// elsewhere is a listener to which those who come from 127.0.0.2 to 127.0.0.255 come from
// 192.0.2.0/24: of loopback all addresses are one.
type elsewhere struct{ net.Listener }

func (e elsewhere) Accept() (net.Conn, error) {
	c, err := e.Listener.Accept()
	if err != nil {
		return nil, err
	}
	from := c.RemoteAddr().(*net.TCPAddr)
	if last := from.IP.To4()[3]; last > 1 {
		return far{c, fmt.Sprintf("192.0.2.%d:%d", last, from.Port)}, nil
	}
	return c, nil
}

// far is a connection of a host elsewhere.
type far struct {
	net.Conn
	from string
}

// Unwrap returns the connection to its listener, if it is more than an address.
func (f far) Unwrap() net.Conn { return f.Conn }

func (f far) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.from)) }

// letIn has a host come in and ask for something that takes its time.
func letIn(t *testing.T, d *Door, from string) (c, ended *conn) {
	t.Helper()
	c, ended, why := d.enter(far{from: from})
	require.Empty(t, why)
	d.State(c, http.StateActive)
	return c, ended
}

// counts tells how many connections each source has.
func counts(d *Door) map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int{}
	for key, s := range d.sources {
		out[key.String()] = s.n
	}
	return out
}

// Busy ones do not keep out who has fewer than the one who has most.
func TestBusyOnesMakeRoomForWhoHasFewer(t *testing.T) {
	const greedy, other, late = "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"
	d := New(Options{Total: 4, PerAddress: 3, now: stopped()})
	oldest, _ := letIn(t, d, greedy)
	for _, from := range []string{other, greedy, greedy} {
		_, ended := letIn(t, d, from)
		require.Nil(t, ended)
	}
	_, _, why := d.enter(far{from: greedy})
	require.Equal(t, PerAddress, why)
	c, ended, why := d.enter(far{from: late})
	require.Empty(t, why)
	require.Same(t, oldest, ended, "the longest busy one of who has most")
	for range 2 { // late has sent nothing, and then is busy
		_, _, why = d.enter(far{from: greedy})
		require.Equal(t, Full, why, "who has more takes nothing from who has fewer")
		d.State(c, http.StateActive)
	}
	_, _, why = d.enter(far{from: other})
	require.Equal(t, Full, why, "it would have as many as the one who makes room")
	d.leave(ended)
	require.Equal(t, Status{Total: 4, Inside: 4, EndedBusy: 1, Refused: map[Refusal]uint64{PerAddress: 1, Full: 3}}, d.Status())
	require.Equal(t, map[string]int{"192.0.2.1": 2, "192.0.2.2": 1, "192.0.2.3": 1}, counts(d))
}

// A host has all the addresses of an IPv6 network that it likes.
func TestAnIPv6NetworkIsOneSource(t *testing.T) {
	seen := []netip.Addr{}
	d := New(Options{PerAddress: 2, now: stopped(), Allow: func(a netip.Addr) bool { seen = append(seen, a); return true }})
	letIn(t, d, "[2001:db8::1]:1")
	letIn(t, d, "[2001:db8::2]:1")
	_, _, why := d.enter(far{from: "[2001:db8::3]:1"})
	require.Equal(t, PerAddress, why)
	letIn(t, d, "[2001:db8:0:1::3]:1")
	letIn(t, d, "[::ffff:192.0.2.1]:1")
	letIn(t, d, "192.0.2.2:1")
	letIn(t, d, "192.0.2.1:1")
	_, _, why = d.enter(far{from: "192.0.2.1:2"})
	require.Equal(t, PerAddress, why)
	require.Equal(t, netip.MustParseAddr("2001:db8::3"), seen[2], "who may is decided by the whole address")
}

// A local user has 16 million addresses of his own, and has what one has.
func TestLoopbackIsOneSource(t *testing.T) {
	d := New(Options{Total: 8, PerAddress: 2, now: stopped()})
	letIn(t, d, "127.0.0.1:1")
	letIn(t, d, "127.9.9.9:1")
	for _, from := range []string{"127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.3]:1"} {
		_, _, why := d.enter(far{from: from})
		require.Equal(t, PerAddress, why, from)
	}
	letIn(t, d, "192.0.2.1:1")
	require.Equal(t, map[string]int{"127.0.0.1": 2, "192.0.2.1": 1}, counts(d))
}

// A host on a wire has as many addresses as it types: where each has one connection and all
// are busy with half a request, whoever comes is let in once the first of them is stalled.
func TestStalledOnesMakeRoomAmongEquals(t *testing.T) {
	const total, late = 128, "198.51.100.1:1"
	now := time.Unix(1_700_000_000, 0)
	d := New(Options{Total: total, PerAddress: 2, now: func() time.Time { return now }})
	var all []*conn
	for i := range total {
		c, _ := letIn(t, d, fmt.Sprintf("10.0.%d.1:1", i))
		all = append(all, c)
		now = now.Add(time.Millisecond)
	}
	now = all[1].busy.Add(stalled - 1)
	_, ended := letIn(t, d, late)
	require.Same(t, all[0], ended, "the longest busy one")
	_, _, why := d.enter(far{from: "198.51.100.2:1"})
	require.Equal(t, Full, why, "no other is stalled")
	now = now.Add(1)
	_, ended = letIn(t, d, "198.51.100.2:1")
	require.Same(t, all[1], ended)
	now = now.Add(time.Minute)
	_, ended = letIn(t, d, late)
	require.Same(t, all[2], ended)
	_, ended = letIn(t, d, late)
	require.Equal(t, "198.51.100.1", ended.from.key.String(), "his own: he has all that one may have")
	require.Equal(t, total, d.Status().Inside)
	require.EqualValues(t, 4, d.Status().EndedBusy)
}

// Who has fewer is not ended for who has more, however long it takes.
func TestStalledOnesOfWhoHasFewerStay(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := New(Options{Total: 3, now: func() time.Time { return now }})
	letIn(t, d, "192.0.2.1:1")
	own, _ := letIn(t, d, "192.0.2.2:1")
	letIn(t, d, "192.0.2.2:1")
	now = now.Add(time.Minute)
	_, ended := letIn(t, d, "192.0.2.2:1")
	require.Same(t, own, ended)
	require.Equal(t, map[string]int{"192.0.2.1": 1, "192.0.2.2": 2}, counts(d))
}

// All of one network together are who has most, however often they begin anew.
func TestNetworksAreComparedFirst(t *testing.T) {
	d := New(Options{Total: 32, PerAddress: 4, Networks: true, now: stopped()})
	var first *conn
	for i := range 29 {
		if c, _ := letIn(t, d, fmt.Sprintf("10.0.%d.%d:1", i%2, 1+i)); i == 0 {
			first = c
		}
	}
	for range 3 {
		letIn(t, d, "192.0.2.1:1")
	}
	c, ended := letIn(t, d, "198.51.100.1:1")
	require.Same(t, first, ended, "15 are in its network; 192.0.2.1 has most of one address")
	_, _, why := d.enter(far{from: "10.0.1.200:1"})
	require.Equal(t, Full, why, "its network would have one more than all others")
	d.leave(c)
	letIn(t, d, "10.0.1.200:1")
	_, ended = letIn(t, d, "192.0.2.2:1")
	require.Equal(t, "10.0.1.0", ended.from.net.key.String())
	require.Len(t, d.networks, 3)
}

// What a member of the group does by the control socket takes its time.
func TestLocalSocketsDoNotStall(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := New(Options{Total: 1, now: func() time.Time { return now }})
	c, _, why := d.enter(localSocket{})
	require.Empty(t, why)
	d.State(c, http.StateActive)
	now = now.Add(time.Minute)
	_, _, why = d.enter(localSocket{})
	require.Equal(t, Full, why)
}

// localSocket is a connection of one.
type localSocket struct{ net.Conn }

func (localSocket) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// Half requests from all addresses that a local user has keep nobody else out, here or elsewhere.
func TestOneLocalUser(t *testing.T) {
	const total, each = 128, 32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d, addr := openAt(t, elsewhere{l}, Options{Total: total, PerAddress: each}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		ok(w, r)
	})
	for i := range total {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i), 1)}, Timeout: 5 * time.Second}).Dial("tcp", addr)
		if err != nil {
			continue // the reset was faster
		}
		defer c.Close()
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
	}
	require.Equal(t, 200, visit(t, "127.0.0.2", addr).ask("localhost"), "from elsewhere at once")
	eventually(t, "all are busy", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.busy.Len() == each })
	eventually(t, "from here once they are stalled", func() bool {
		c, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		return visitor{c, bufio.NewReader(c)}.ask("localhost") == 200
	})
}

// One address uses up its own part only, and its own idle ones make room for it.
func TestOneAddressHasItsPart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d, addr := openAt(t, elsewhere{l}, Options{Total: 10, PerAddress: 2}, ok)
	other := visit(t, "127.0.0.2", addr)
	require.Equal(t, 200, other.ask("localhost"))
	for range 50 {
		require.Equal(t, 200, visit(t, "127.0.0.1", addr).ask("localhost"))
		eventually(t, "idle", func() bool { return idle(d) == d.Status().Inside }) // a moment after the answer
	}
	require.Equal(t, 200, other.ask("localhost"))
	require.LessOrEqual(t, d.Status().Inside, 3)
	require.GreaterOrEqual(t, d.Status().EndedIdle, uint64(48))
}

// Who is in no list is closed before a byte is read, with a reset.
func TestAllowIsCheckedAtOnce(t *testing.T) {
	d, addr := open(t, Options{Allow: func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.2") }}, ok)
	c, err := net.DialTimeout("tcp", addr, 5*time.Second) // the reset may come before this returns
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Equal(t, 200, visit(t, "127.0.0.2", addr).ask("localhost"))
	require.EqualValues(t, 1, d.Status().Refused[NotAllowed])
}

// Who sends or reads too slowly is let go.
func TestSlowOnesAreLetGo(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	ended := make(chan error, 1)
	_, addr := open(t, Options{Timeouts: Timeouts{Header: 50 * time.Millisecond, Read: 50 * time.Millisecond, Write: 50 * time.Millisecond, Idle: 50 * time.Millisecond}},
		func(w http.ResponseWriter, _ *http.Request) {
			for range 64 { // more than the buffers of both sides hold
				if _, err := io.WriteString(w, big); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		})
	writer := visit(t, "127.0.0.1", addr)
	_, err := io.WriteString(writer, "GET / HT")
	require.NoError(t, err)
	_, err = io.ReadAll(writer.r)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	reader := visit(t, "127.0.0.1", addr)
	_, err = io.WriteString(reader, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	require.Error(t, <-ended, "an answer that nobody reads")
}

func TestHosts(t *testing.T) {
	local := &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 9467}
	h := Hosts{Key: "console.hosts", Names: []string{"router1.example.net", "198.51.100.9"}}
	for host, want := range map[string]bool{
		"localhost": true, "localhost:9467": true, "LOCALHOST.": true, "127.0.0.1:9467": true, "127.9.9.9": true, "[::1]:9467": true, "::1": true,
		"192.0.2.1": true, "192.0.2.1:80": true, "[::ffff:192.0.2.1]:1": true, "router1.example.net:9467": true, "Router1.Example.Net.": true, "198.51.100.9": true, "": true,
		"192.0.2.2": false, "evil.example": false, "localhost.evil.example": false, "127.0.0.1.evil.example:9467": false, "router1.example.net.evil.example": false, "0.0.0.0": false, "[": false,
	} {
		assert.Equal(t, want, h.allows(host, local), host)
	}
}

// A name that somebody's browser was made to resolve to this host gets nothing.
func TestRebinding(t *testing.T) {
	told := make(chan string, 2)
	d, addr := open(t, Options{
		Hosts:   func() Hosts { return Hosts{Key: "console.hosts", Names: []string{"router1.example.net"}} },
		Refused: func(why Refusal, a netip.Addr, name string) { told <- fmt.Sprint(why, " ", a, " ", name) },
	}, ok)
	require.Equal(t, http.StatusMisdirectedRequest, visit(t, "127.0.0.1", addr).ask("evil.example"))
	require.Equal(t, 200, visit(t, "127.0.0.1", addr).ask("router1.example.net"))
	require.Equal(t, 200, visit(t, "127.0.0.1", addr).ask(addr))
	req, err := http.NewRequest(http.MethodGet, "http://"+addr, nil)
	require.NoError(t, err)
	req.Host = "evil.example"
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	require.Contains(t, string(body), `names in console.hosts of its configuration; "evil.example" is none of them`)
	require.EqualValues(t, 2, d.Status().Refused[OtherName])
	require.Equal(t, "other_name 127.0.0.1 evil.example", <-told)
}

func FuzzHostname(f *testing.F) {
	f.Add("a.example:80")
	f.Add("[::1%25eth0]:1")
	f.Fuzz(func(t *testing.T, host string) {
		h := Hosts{Names: []string{"good.example"}}
		if name := hostname(host); h.allows(host, nil) && host != "" && name != "localhost" && name != "good.example" {
			a, err := netip.ParseAddr(name)
			require.NoError(t, err)
			require.True(t, a.Unmap().WithZone("").IsLoopback())
		}
	})
}

func TestShares(t *testing.T) {
	for _, limit := range []uint64{64, 1024, 4096, 524288} {
		shares := Shares(limit, 128, 128, 2048, 64)
		sum := uint64(0)
		for _, s := range shares {
			require.Positive(t, s)
			sum += uint64(s)
		}
		require.LessOrEqual(t, sum+Reserve(limit), limit)
		require.GreaterOrEqual(t, Reserve(limit), min(512, limit/2))
	}
	require.Equal(t, []int{128, 128, 2048, 64}, Shares(1<<16, 128, 128, 2048, 64))
	require.GreaterOrEqual(t, Shares(1024, 128, 128, 2048, 64)[0], 16, "the portal does not starve the console")
	require.Equal(t, []int{128, 0, 0, 64}, Shares(1024, 128, 0, 0, 64), "who wants none leaves it to the others")
	require.Zero(t, Shares(64, 128, 0, 2048, 64)[1])
	require.Positive(t, Descriptors())
}

// With Users each local user has his own share: who begins anew all the time crowds out himself, also where nobody knows who it is.
func TestLocalUsersCountByThemselves(t *testing.T) {
	user := uint64(0)
	d := New(Options{Total: 4, PerAddress: 4, Networks: true, Users: true, now: stopped(), localUser: func(net.Conn) uint64 { return user }})
	come := func(as uint64) *conn {
		user = as
		_, ended := letIn(t, d, "127.0.0.1:1")
		return ended
	}
	for range 4 {
		require.Nil(t, come(1001))
	}
	for _, as := range []uint64{1002, 0} {
		ended := come(as)
		require.NotNil(t, ended, "nothing of it is stalled")
		require.EqualValues(t, 1001, ended.from.key.user)
	}
	user = 1001
	_, _, why := d.enter(far{from: "127.0.0.1:1"})
	require.Equal(t, Full, why, "he takes nothing from who has fewer")
	_, ended := letIn(t, d, "192.0.2.1:1")
	require.EqualValues(t, 1001, ended.from.key.user, "loopback is one network all the same")

	d = New(Options{Total: 4, PerAddress: 4, Networks: true, now: stopped(), localUser: func(net.Conn) uint64 { return user }})
	for range 4 {
		require.Nil(t, come(1001))
	}
	user = 1002
	_, _, why = d.enter(far{from: "127.0.0.1:1"})
	require.Equal(t, PerAddress, why, "without it loopback is one")
}

// The kernel knows whose the other end of a local connection is, as long as somebody has it.
func TestKernelLocalUser(t *testing.T) {
	labtest.Need(t)
	const nobody = 65534
	for _, on := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		ln, err := net.Listen("tcp", on)
		require.NoError(t, err)
		defer ln.Close()
		to := ln.Addr().String()
		if on == "[::]:0" { // of which IPv4 comes as IPv6
			to = fmt.Sprintf("127.9.9.9:%d", ln.Addr().(*net.TCPAddr).Port)
		}
		for _, uid := range []int{0, nobody} {
			var c net.Conn
			done := make(chan error, 1)
			go func() { // a socket belongs to the user of the thread that makes it
				runtime.LockOSThread() // never unlocked: the thread ends with it
				if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0); errno != 0 {
					done <- errno
					return
				}
				var err error
				c, err = net.Dial("tcp", to)
				done <- err
			}()
			require.NoError(t, <-done)
			here, err := ln.Accept()
			require.NoError(t, err)
			defer here.Close()
			require.EqualValues(t, uid+1, localUser(here), on)
			require.NoError(t, c.Close())
			require.Zero(t, localUser(here), "nobody has it any more")
		}
	}
}
