// Package lab makes small networks out of network namespaces, for the demo and
// for tests against real clients, relays and the real kernel. It needs root and
// the ip command. Everything it makes disappears with Close; what a killed
// process left behind is removed by the next New.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// netnsDir is where ip-netns(8) keeps its named namespaces.
const netnsDir = "/run/netns"

// Lab is a set of hosts and the wires between them.
type Lab struct {
	prefix string
	dir    string

	spawn     chan func() // runs on one locked thread that lives as long as the lab
	done      chan struct{}
	closeOnce sync.Once

	mu    sync.Mutex // guards hosts and procs
	hosts []*Host
	procs []*Process
}

// Host is one network namespace with its own loopback, interfaces and rules.
type Host struct {
	Name      string // short name, as given
	Namespace string // name for "ip netns exec"
	lab       *Lab
}

// Process is a program that runs on a host.
type Process struct {
	Name    string
	Command string // as typed on Host
	Host    string
	LogPath string // its standard output and error
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // result of Wait; read after done is closed
}

// Missing lists what New needs and this machine lacks; empty if all is there.
func Missing(commands ...string) []string {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, c := range append([]string{"ip"}, commands...) {
		if _, err := exec.LookPath(c); err != nil {
			missing = append(missing, c)
		}
	}
	return missing
}

// New starts an empty lab. Files of its processes go to dir, which must exist.
// The name becomes part of the namespaces' names: lower-case letters only.
func New(name, dir string) (*Lab, error) {
	if missing := Missing(); len(missing) > 0 {
		return nil, fmt.Errorf("lab %s: needs %s", name, strings.Join(missing, ", "))
	}
	sweep()
	l := &Lab{
		prefix: fmt.Sprintf("usher-%s-%d-", name, os.Getpid()),
		dir:    dir,
		spawn:  make(chan func()),
		done:   make(chan struct{}),
	}
	// A child that must die with its parent is tied to the parent's thread,
	// not to its process (prctl(2), PR_SET_PDEATHSIG): keep that thread.
	go func() {
		runtime.LockOSThread()
		defer close(l.done)
		for f := range l.spawn {
			f()
		}
	}()
	return l, nil
}

// sweep removes the namespaces of labs whose process is gone.
func sweep() {
	entries, err := os.ReadDir(netnsDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		part := strings.Split(e.Name(), "-")
		if len(part) < 4 || part[0] != "usher" {
			continue
		}
		pid, err := strconv.Atoi(part[2])
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		killInside(e.Name())
		_ = exec.Command("ip", "netns", "del", e.Name()).Run()
	}
}

// killInside ends every process that still runs in a namespace.
func killInside(namespace string) {
	out, err := exec.Command("ip", "netns", "pids", namespace).Output()
	if err != nil {
		return
	}
	for _, f := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// Host adds a host. Its loopback is up.
func (l *Lab) Host(name string) (*Host, error) {
	h := &Host{Name: name, Namespace: l.prefix + name, lab: l}
	if err := run("ip", "netns", "add", h.Namespace); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	return h, h.IP("link", "set", "lo", "up")
}

// Wire joins two hosts by a cable (a veth pair) and sets both ends up.
func (l *Lab) Wire(a *Host, ifA string, b *Host, ifB string) error {
	if err := run("ip", "link", "add", ifA, "netns", a.Namespace, "type", "veth",
		"peer", "name", ifB, "netns", b.Namespace); err != nil {
		return err
	}
	if err := a.IP("link", "set", "dev", ifA, "up"); err != nil {
		return err
	}
	return b.IP("link", "set", "dev", ifB, "up")
}

// IP runs the ip command on the host.
func (h *Host) IP(args ...string) error {
	return run("ip", append([]string{"-n", h.Namespace}, args...)...)
}

// Sysctl sets a kernel parameter of the host, such as "net.ipv4.ip_forward".
func (h *Host) Sysctl(key, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	return h.do(func() error { return os.WriteFile(path, []byte(value), 0o644) })
}

// Output runs a program on the host and gives what it printed, both streams.
func (h *Host) Output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.Namespace, name}, args...)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %s %s: %w: %s", h.Name, name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), err
}

// Start runs a program on the host in the background. It dies with this process
// at the latest; Close ends it.
func (h *Host) Start(name string, args ...string) (*Process, error) {
	return h.StartEnv(nil, name, args...)
}

// StartEnv is Start with more environment variables ("KEY=value").
func (h *Host) StartEnv(env []string, name string, args ...string) (*Process, error) {
	return h.StartFiles(nil, env, name, args...)
}

// StartFiles is StartEnv with open files, which the program has from descriptor 3 on.
func (h *Host) StartFiles(files []*os.File, env []string, name string, args ...string) (*Process, error) {
	l := h.lab
	l.mu.Lock()
	n := len(l.procs)
	l.mu.Unlock()
	path := filepath.Join(l.dir, fmt.Sprintf("%02d-%s-%s.log", n, h.Name, filepath.Base(name)))
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.Namespace, name}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = file, file, files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &Process{Name: filepath.Base(name), Command: strings.Join(append([]string{name}, args...), " "), Host: h.Name, LogPath: path, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	l.spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: start %s: %w", h.Name, name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	l.mu.Lock()
	l.procs = append(l.procs, p)
	l.mu.Unlock()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the process.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns how the process ended, or the context's error.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s still runs: %w", p.Name, ctx.Err())
	}
}

// Stop ends the process: SIGTERM, and SIGKILL to its group after the grace.
func (p *Process) Stop(grace time.Duration) error {
	_ = p.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := p.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		p.Kill()
	}
	return err
}

// Kill ends the process and its group at once, as kill -9 does.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.done
}

// Log returns what the process has printed so far.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.LogPath)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Listen opens a TCP listener on the host.
func (h *Host) Listen(address string) (net.Listener, error) {
	var ln net.Listener
	err := h.do(func() (err error) {
		ln, err = net.Listen("tcp"+family(address), address)
		return err
	})
	return ln, err
}

// ListenPacket opens a UDP socket on the host.
func (h *Host) ListenPacket(address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := h.do(func() (err error) {
		conn, err = net.ListenPacket("udp"+family(address), address)
		return err
	})
	return conn, err
}

// Dial opens a TCP connection from the host.
func (h *Host) Dial(address string, timeout time.Duration) (net.Conn, error) {
	var conn net.Conn
	err := h.do(func() (err error) {
		// A literal address and one attempt keep the dial on this thread.
		d := net.Dialer{Timeout: timeout, KeepAlive: -1}
		conn, err = d.Dial("tcp"+family(address), address)
		return err
	})
	return conn, err
}

// family is "4" or "6", as a literal address is. Without it 0.0.0.0 would be both.
func family(address string) string {
	if strings.HasPrefix(address, "[") {
		return "6"
	}
	return "4"
}

// Do runs f on a thread that stands in the host's network namespace: sockets
// that f opens belong to the host. f must not start goroutines that do.
func (h *Host) Do(f func() error) error { return h.do(f) }

// do runs f on a thread that stands in the host's namespace.
func (h *Host) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has changed its namespace must not
		// serve other goroutines; it ends with this one.
		runtime.LockOSThread()
		result <- func() error {
			ns, err := os.Open(filepath.Join(netnsDir, h.Namespace))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", h.Namespace, err)
			}
			return f()
		}()
	}()
	return <-result
}

// Processes returns everything that was started, in order.
func (l *Lab) Processes() []*Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.procs)
}

// Close ends every process and removes every namespace. It may be called twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	procs, hosts := l.procs, l.hosts
	l.procs, l.hosts = nil, nil
	l.mu.Unlock()
	for i := len(procs) - 1; i >= 0; i-- {
		_ = procs[i].Stop(2 * time.Second)
	}
	var errs []error
	for _, h := range hosts {
		killInside(h.Namespace)
		errs = append(errs, run("ip", "netns", "del", h.Namespace))
	}
	l.closeOnce.Do(func() {
		close(l.spawn)
		<-l.done
	})
	return errors.Join(errs...)
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
