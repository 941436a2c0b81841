package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/dhcpd/probe"
	dhcp "github.com/usher-agent/usher/dhcpd/wire"
)

// dhcpSocketName stays the same from version to version.
const dhcpSocketName = "dhcp"

// manager keeps descriptors as systemd does: what it is told comes in on NOTIFY_SOCKET.
type manager struct {
	conn *net.UnixConn
	path string

	mu    sync.Mutex // guards what follows
	kept  map[string][]*os.File
	words []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(t.TempDir(), "notify.sock"), kept: map[string][]*os.File{}}
	var err error
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.listen()
	}()
	t.Cleanup(func() {
		_ = m.conn.Close()
		<-done
		for _, files := range m.kept {
			for _, f := range files {
				_ = f.Close()
			}
		}
	})
	return m
}

func (m *manager) listen() {
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, nOOB, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		var files []*os.File
		if messages, err := unix.ParseSocketControlMessage(oob[:nOOB]); err == nil {
			for i := range messages {
				fds, _ := unix.ParseUnixRights(&messages[i])
				for _, fd := range fds {
					unix.CloseOnExec(fd)
					files = append(files, os.NewFile(uintptr(fd), "kept"))
				}
			}
		}
		m.take(string(buf[:n]), files)
	}
}

func (m *manager) take(text string, files []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.words = append(m.words, strings.ReplaceAll(text, "\n", " "))
	lines := strings.Split(text, "\n")
	name := "stored"
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, "FDNAME="); ok {
			name = v
		}
	}
	switch {
	case slices.Contains(lines, "FDSTORE=1"):
		m.kept[name] = append(m.kept[name], files...)
		return
	case slices.Contains(lines, "FDSTOREREMOVE=1"):
		files = append(files, m.kept[name]...)
		delete(m.kept, name)
	}
	for _, f := range files {
		_ = f.Close()
	}
}

// names are those of the descriptors that it keeps, one for each.
func (m *manager) names() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.kept)) {
		for range m.kept[name] {
			names = append(names, name)
		}
	}
	return names
}

// files returns copies of what it keeps, which may be closed while they are handed on.
func (m *manager) files(t *testing.T) (files []*os.File) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.kept)) {
		for _, f := range m.kept[name] {
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			require.NoError(t, err)
			files = append(files, os.NewFile(uintptr(fd), name))
		}
	}
	return files
}

// start starts the agent of a world as systemd does, with what it keeps: it is the only other one that has that open.
func (m *manager) start(t *testing.T, w *world, program string) {
	t.Helper()
	w.Program = filepath.Join(w.Dir, "started.sh") // LISTEN_PID is known from the fork on
	gate := filepath.Join(w.Dir, "started.gate")
	if err := unix.Mkfifo(gate, 0o600); !errors.Is(err, unix.EEXIST) {
		require.NoError(t, err)
	}
	w.FilesHandedOver = func() error { return os.WriteFile(gate, []byte("go\n"), 0) }
	require.NoError(t, os.WriteFile(w.Program, []byte("#!/bin/sh\nread -r _ <"+gate+"\nexport LISTEN_PID=$$\nexec "+program+" \"$@\"\n"), 0o755))
	w.AgentFiles = m.files(t)
	w.AgentEnv = []string{"NOTIFY_SOCKET=" + m.path}
	if len(w.AgentFiles) > 0 {
		w.AgentEnv = append(w.AgentEnv, "LISTEN_FDS="+strconv.Itoa(len(w.AgentFiles)), "LISTEN_FDNAMES="+strings.Join(m.names(), ":"))
	}
	require.NoError(t, w.StartAgent(t.Context()))
}

// load is a relay with many clients, of which one after another asks for an address.
type load struct {
	conn    *net.UDPConn
	server  netip.AddrPort
	packets [][]byte // the one with transaction n is packets[n%len(packets)]
	stop    chan struct{}
	all     sync.WaitGroup
	sender  sync.WaitGroup

	sending sync.Mutex // held while a packet is sent
	mu      sync.Mutex // guards what follows
	sent    []time.Time
	answers []heard
}

// heard is an answer: to which packet, and when it came.
type heard struct {
	n  uint32
	at time.Time
}

// startLoad sends a DISCOVER every so often until the test is over.
func startLoad(t *testing.T, w *world, every time.Duration) *load {
	t.Helper()
	conn, err := w.Access.ListenPacket(miniature.GatewayIP + ":67")
	require.NoError(t, err)
	l := &load{conn: conn.(*net.UDPConn), server: netip.MustParseAddrPort("10.0.0.1:67"), stop: make(chan struct{})}
	// What waited is answered at once.
	c, err := l.conn.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) }))
	require.NoError(t, err)
	for i, target := range relayTargets(w.ERP) {
		circuit := binary.BigEndian.AppendUint16([]byte{0, 4, 0, 100}, target.port)
		info, err := probe.RelayInfo(circuit, append([]byte{0, 6}, target.remote[:]...))
		require.NoError(t, err)
		q := dhcp.Query{Type: dhcp.Discover, MAC: [6]byte{2, 0, 0, 7, byte(i >> 8), byte(i)}, GIAddr: netip.MustParseAddr(miniature.GatewayIP), Option82: info}
		l.packets = append(l.packets, q.Append(nil))
	}
	require.Greater(t, len(l.packets), 50)
	l.sender.Go(func() { l.send(every) })
	l.all.Go(l.hear)
	t.Cleanup(l.end)
	return l
}

func (l *load) send(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := uint32(0); ; n++ {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		l.sending.Lock()
		p := slices.Clone(l.packets[int(n)%len(l.packets)])
		binary.BigEndian.PutUint32(p[4:], n)
		l.mu.Lock()
		l.sent = append(l.sent, time.Now())
		l.mu.Unlock()
		_, _ = l.conn.WriteToUDPAddrPort(p, l.server) // refused where nobody listens
		l.sending.Unlock()
	}
}

func (l *load) hear() {
	buf := make([]byte, 2048)
	for {
		n, _, err := l.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if n > 240 {
			l.mu.Lock()
			l.answers = append(l.answers, heard{binary.BigEndian.Uint32(buf[4:]), time.Now()})
			l.mu.Unlock()
		}
	}
}

// quiet stops sending; what is on its way is still heard.
func (l *load) quiet() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.sender.Wait() // one packet more may have been on its way to be sent
}

func (l *load) end() {
	l.quiet()
	_ = l.conn.Close()
	l.all.Wait()
}

func (l *load) counts() (sent, answered int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sent), len(l.answers)
}

// more waits until so many more packets are sent.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	first, _ := l.counts()
	eventually(t, 30*time.Second, fmt.Sprint(n, " more packets are sent"), func() (bool, error) {
		sent, _ := l.counts()
		return sent >= first+n, nil
	})
}

// between does what a kill may: no packet is sent meanwhile, and none is with the agent, in whose memory it would end with it.
func (l *load) between(t *testing.T, f func()) {
	t.Helper()
	l.sending.Lock()
	defer l.sending.Unlock()
	eventually(t, 10*time.Second, "all are answered", func() (bool, error) {
		sent, answered := l.counts()
		return answered == sent, nil
	})
	f()
}

// unanswered stops sending and waits until all are answered or the time is over. It returns the packets without an answer.
func (l *load) unanswered(t *testing.T, limit time.Duration) (missing []int) {
	t.Helper()
	l.quiet()
	_ = miniature.Until(t.Context(), limit, "all are answered", func() (bool, error) {
		sent, answered := l.counts()
		return answered >= sent, nil
	})
	l.end()
	for i, a := range l.answers[1:] {
		assert.Greater(t, a.n, l.answers[i].n, "answered once, and in order")
	}
	for n := range l.sent {
		if _, ok := l.answered(n); !ok {
			missing = append(missing, n)
		}
	}
	return missing
}

// answered returns how long a packet waited for its answer, after the end.
func (l *load) answered(n int) (wait time.Duration, ok bool) {
	for _, a := range l.answers {
		if a.n == uint32(n) {
			return a.at.Sub(l.sent[n]), true
		}
	}
	return 0, false
}

// A restart and a kill -9 under load lose no packet where the service manager keeps the socket.
func TestKernelHandOverLosesNothing(t *testing.T) {
	w := worldWithoutRelay(t, miniature.Options{Homes: 1, Customers: 120})
	program, m := w.Program, newManager(t)
	m.start(t, w, program)
	require.Equal(t, []string{dhcpSocketName}, m.names())
	l := startLoad(t, w, 5*time.Millisecond)
	for _, kill := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM} {
		l.more(t, 100)
		if kill == syscall.SIGKILL {
			l.between(t, w.Agent.Kill)
		} else {
			require.NoError(t, w.Agent.Signal(kill))
		}
		<-w.Agent.Done()
		l.more(t, 100) // nobody is there
		m.start(t, w, program)
		require.Equal(t, []string{dhcpSocketName}, m.names())
		require.Contains(t, w.Agent.Log(), "the socket of an earlier agent is taken over")
	}
	l.more(t, 100)
	assert.Empty(t, l.unanswered(t, 5*time.Second), "these got no answer")
	sent, _ := l.counts()
	t.Logf("%d packets over three restarts", sent)
	assert.Contains(t, w.Agent.Log(), "packets that had waited for the agent to start are dealt with")
	assert.NotContains(t, strings.Join(m.words, "\n"), "FDSTOREREMOVE", "nothing is pushed twice or dropped")
}

// What has waited for more than four seconds is not answered any more, but counted.
func TestKernelHandOverAnswersNothingOld(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, miniature.Options{Homes: 1, Customers: 120})
	program, m := w.Program, newManager(t)
	m.start(t, w, program)
	l := startLoad(t, w, 20*time.Millisecond)
	l.more(t, 20)
	l.between(t, w.Agent.Kill)
	gone, _ := l.counts()
	l.more(t, 300) // 6 s
	m.start(t, w, program)
	l.more(t, 20)
	missing := l.unanswered(t, 2*time.Second)
	require.NotEmpty(t, missing)
	oldest := gone + len(missing) // of those that are answered
	for i, n := range missing {
		assert.Equal(t, gone+i, n, "the oldest, without a gap")
	}
	wait, ok := l.answered(oldest)
	require.True(t, ok)
	assert.Greater(t, wait, 3800*time.Millisecond, "nothing younger is dropped")
	for n := oldest; n < len(l.sent); n++ {
		wait, ok := l.answered(n)
		require.True(t, ok)
		assert.Less(t, wait, 4500*time.Millisecond, "packet %d", n)
	}
	st := w.status(t)
	stale := uint64(0)
	for _, o := range st.DHCP.Outcomes {
		if o.Outcome == "stale" {
			stale += o.Count
		}
	}
	assert.EqualValues(t, len(missing), stale)
}

// What is kept and does not fit is dropped, also by name, and never ends the start: the port is free for a new socket.
func TestKernelHandOverOfOtherSockets(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, miniature.Options{Homes: 1, Customers: 120})
	program, m := w.Program, newManager(t)
	m.start(t, w, program)
	w.Agent.Kill()
	other, err := os.Open(os.DevNull)
	require.NoError(t, err)
	m.take("FDSTORE=1\nFDNAME=of-a-newer-version", []*os.File{other})
	w.configure(t, map[string]string{"listen": "10.0.0.1:67"})
	m.start(t, w, program)
	assert.Contains(t, w.Agent.Log(), "it is bound to 0.0.0.0:67, not to 10.0.0.1:67")
	assert.Contains(t, w.Agent.Log(), `"name":"of-a-newer-version"`)
	assert.Equal(t, netip.MustParseAddrPort("10.0.0.1:67"), w.status(t).DHCP.Listen)
	assert.Equal(t, []string{dhcpSocketName}, m.names(), "the new one alone")

	w.Agent.Kill()
	w.configure(t, map[string]string{"listen": "", "enabled": "false"})
	m.start(t, w, program)
	assert.Empty(t, m.names(), "nobody answers, so nothing waits")
}
