// Package dora is a place to measure a server in: a router with the agent, and a
// relay with clients behind it, as two hosts on one cable, and the agent's ERP.
// Most clients are guests, who get addresses of a pool.
package dora

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/usher-agent/usher/bench/batch"
	"github.com/usher-agent/usher/bench/load"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

const (
	key      = "bench-key" // of the emulated ERP
	erpAddr  = "127.0.0.1:8080"
	relay    = "10.0.0.2" // what the relay sends from
	echoPort = 1067
)

// ServerAddr and EchoAddr are what the relay asks.
var (
	ServerAddr = netip.MustParseAddrPort("10.0.0.1:67")
	EchoAddr   = netip.AddrPortFrom(ServerAddr.Addr(), echoPort)
)

// Guests' network: 2,097,152 addresses. Bound customers have a network of their own.
var (
	guestNet = netip.MustParsePrefix("10.32.0.0/11")
	boundNet = netip.MustParsePrefix("10.16.0.0/16")
	gateway  = netip.MustParseAddr("10.32.0.1") // the relay's giaddr
)

// Options are what differs.
type Options struct {
	Program string // the usher to run
	Dir     string // for everything that is kept; must exist
	ACL     bool   // rules for paused customers and guests, as by default
	Bound   int    // customers that the ERP binds an address to, 60,000 at most
}

// Site is the place. It needs root.
type Site struct {
	Router, Relay *lab.Host
	Agent         *lab.Process // the newest; nil: none was started

	o    Options
	lab  *lab.Lab
	erp  *emulator.Emulator
	web  *http.Server
	conn *batch.Conn

	prefilled int    // leases that Prefill has made
	cursor    uint32 // the next that it tries
}

// New builds a site without an agent. On error nothing is left.
func New(o Options) (s *Site, err error) {
	s = &Site{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.lab, err = lab.New("dora", o.Dir); err != nil {
		return nil, err
	}
	if s.Router, err = s.lab.Host("router"); err != nil {
		return nil, err
	}
	if s.Relay, err = s.lab.Host("relay"); err != nil {
		return nil, err
	}
	if err = errors.Join(
		s.lab.Wire(s.Router, "access", s.Relay, "uplink"),
		s.Router.IP("addr", "add", ServerAddr.Addr().String()+"/30", "dev", "access"),
		s.Relay.IP("addr", "add", relay+"/30", "dev", "uplink"),
		s.Relay.IP("addr", "add", gateway.String()+"/32", "dev", "lo"),
		s.Relay.IP("route", "add", "default", "via", ServerAddr.Addr().String()),
		s.Router.IP("route", "add", guestNet.String(), "via", relay),
		s.Router.IP("route", "add", boundNet.String(), "via", relay),
	); err != nil {
		return nil, err
	}
	if err = s.Relay.Do(func() (err error) {
		s.conn, err = batch.Listen(netip.AddrPortFrom(gateway, 67))
		return err
	}); err != nil {
		return nil, err
	}
	if err = s.startERP(); err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.configPath(), []byte(s.config()), 0o600)
}

// Close takes everything down.
func (s *Site) Close() error {
	var errs []error
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	if s.web != nil {
		errs = append(errs, s.web.Close())
	}
	if s.erp != nil {
		errs = append(errs, s.erp.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	return errors.Join(errs...)
}

// Generator returns one that sends from the relay's address. One at a time may run.
func (s *Site) Generator(o load.Options) *load.Generator {
	o.Relay = gateway
	return load.New(s.conn, o)
}

// Guests returns n clients whom the ERP does not know, each behind its own port; those of another first number, from 0 on, are others.
func Guests(first, n int) []load.Client {
	all := make([]load.Client, n)
	for i := range all {
		k := uint32(first + i)
		all[i] = load.Client{MAC: mac(0x06, k), Port: 1_000_000 + k}
	}
	return all
}

// Customers returns the clients to whom the ERP binds addresses.
func (s *Site) Customers() []load.Client {
	all := make([]load.Client, s.o.Bound)
	for i := range all {
		all[i] = load.Client{MAC: mac(0x02, uint32(i)), Port: uint32(i + 1)}
	}
	return all
}

// mac returns a locally administered address: kind, and the number n.
func mac(kind byte, n uint32) [6]byte {
	m := [6]byte{kind}
	binary.BigEndian.PutUint32(m[2:], n)
	return m
}

// startERP serves an ERP with one switch, which is the relay, and its bound customers.
func (s *Site) startERP() (err error) {
	if s.erp, err = emulator.Open(emulator.Options{Keys: []emulator.Key{{Key: key}}}); err != nil {
		return err
	}
	d := emulator.Device{Name: "switch", MAC: emulator.MAC{0, 0, 0x5e, 0, 0x53, 1}, IP: gateway}
	for i := range max(s.o.Bound, 1) {
		n := uint32(i + 1)
		d.Ports = append(d.Ports, emulator.Port{Number: n, Index: n, Name: load.PortName(n)})
	}
	device, err := s.erp.AddDevice(d)
	if err != nil {
		return err
	}
	for i := range max(s.o.Bound, 1) { // without any binding nothing is served
		name := "customer" + strconv.Itoa(i+1)
		if _, err := s.erp.AddCustomer(emulator.Customer{
			Login: name, FullName: name, State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: at(boundNet, uint32(256+i)), MAC: mac(0x02, uint32(i))}},
			Links:     []emulator.Link{{Device: device, Port: uint32(i + 1)}},
		}); err != nil {
			return err
		}
	}
	ln, err := s.Router.Listen(erpAddr)
	if err != nil {
		return err
	}
	s.web = &http.Server{Handler: s.erp, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.web.Serve(ln) }()
	return nil
}

// at returns the n-th address of a network.
func at(p netip.Prefix, n uint32) netip.Addr {
	a := p.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+n)
	return netip.AddrFrom4(a)
}

const (
	scatter   = 2654435761 // odd, so that its multiples come to every address of the network once
	guestMask = 1<<(32-11) - 1
)

// Two pools share the network.
var (
	poolNames = [...]string{"guests", "more-guests"}
	halves    = [...]netip.Prefix{netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("10.48.0.0/12")}
)

// firstGuest leaves room for the gateway; the last one is the broadcast address.
var firstGuest, lastGuest = at(guestNet, 256), at(guestNet, guestMask)

// StateDir is where the agent keeps its files.
func (s *Site) StateDir() string { return filepath.Join(s.o.Dir, "state") }

func (s *Site) configPath() string { return filepath.Join(s.o.Dir, "usher.yaml") }

// config is that of the agent. All clients are behind one relay, so its limit is the one of a relay in front of all of them.
func (s *Site) config() string {
	return fmt.Sprintf(`state_dir: %s
userside:
  url: http://%s/api.php
  key: %s
  allow_inline_key: true
  poll_interval: 1h
dhcp:
  interfaces: [access]
  relays: [%s, %s] # the giaddr of the relay, and what it sends from
  check_relay_source: true
  option82_relays: all
  trusted_interfaces: none
  limits: {relay: {rate: 1000000, burst: 1000000}}
  shared_networks: [{prefixes: [%s, %s]}]
  subnets:
    - {prefix: %s, gateway: %s, dns: [192.0.2.53], lease_time: 12h}
    - {prefix: %s, gateway: %s, dns: [192.0.2.53], lease_time: 12h}
  unknown_clients: guest
  pools: # each as large as one may be
    - {name: %s, range: %s, lease_time: 12h}
    - {name: %s, range: %s, lease_time: 12h}
acl:
  enabled: %t
control:
  socket: %s
console:
  listen: "off"
`, s.StateDir(), erpAddr, key, gateway, relay, guestNet, boundNet, guestNet, gateway, boundNet, at(boundNet, 1),
		poolNames[0], halves[0], poolNames[1], halves[1],
		s.o.ACL, filepath.Join(s.o.Dir, "usher.sock"))
}

// Start starts the agent and returns how long it took to say that it is ready, by sd_notify(3).
func (s *Site) Start(ctx context.Context) (time.Duration, error) {
	path := filepath.Join(s.o.Dir, "notify.sock")
	_ = os.Remove(path)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begin := time.Now()
	p, err := s.Router.StartEnv([]string{"NOTIFY_SOCKET=" + path}, s.o.Program, "run", "--config", s.configPath())
	if err != nil {
		return 0, err
	}
	s.Agent = p
	ended := make(chan struct{})
	defer close(ended)
	go func() { // what ends the wait
		select {
		case <-p.Done():
		case <-ctx.Done():
		case <-ended:
			return
		}
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}()
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return 0, errors.Join(fmt.Errorf("the agent is not ready: %w: %s", err, lastLines(p.Log(), 10)), context.Cause(ctx))
		}
		if strings.HasPrefix(string(buf[:n]), "READY=1") {
			return time.Since(begin), nil
		}
	}
}

// lastLines returns the last n lines of a log.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Stop ends the agent as a service manager does.
func (s *Site) Stop() error {
	_ = s.Agent.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Agent.Wait(ctx); err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(s.Agent.Log(), 10))
	}
	return nil
}

// Prefill writes leases of guests to the agent's state until there are n besides those that
// the agent has given itself. They are spread over the network, as the hash of MACs spreads them. The agent must not run.
func (s *Site) Prefill(n int, log *slog.Logger) (err error) {
	if n > guestMask/2 {
		return fmt.Errorf("prefill %d leases: want %d at most", n, guestMask/2)
	}
	if err := os.MkdirAll(s.StateDir(), 0o750); err != nil {
		return err
	}
	store, err := lease.OpenStore(context.Background(), s.StateDir(), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	taken := map[netip.Addr]struct{}{}
	if err := store.Leases(func(r lease.Record, err error) { taken[r.IP] = struct{}{} }); err != nil {
		return err
	}
	var more []guest
	for s.prefilled < n {
		k := s.cursor
		s.cursor++
		ip := at(guestNet, k*scatter&guestMask)
		if _, ok := taken[ip]; ok || ip.Less(firstGuest) || ip == lastGuest {
			continue
		}
		more = append(more, guest{ip, k})
		s.prefilled++
	}
	// A store of pages writes each page once so, and not with every batch.
	slices.SortFunc(more, func(a, b guest) int { return a.ip.Compare(b.ip) })
	now := time.Now().Truncate(time.Second)
	for batch := range slices.Chunk(more, 10_000) {
		if err := store.Commit(func(b *lease.Batch) error {
			for _, g := range batch {
				b.Leases = append(b.Leases, guestLease(g, now))
			}
			return nil
		}); err != nil {
			return fmt.Errorf("prefill: %w", err)
		}
	}
	return nil
}

// guest is one of those that Prefill makes.
type guest struct {
	ip netip.Addr
	n  uint32
}

// guestLease is a record as the agent makes them here.
func guestLease(g guest, now time.Time) lease.Record {
	m, pool := mac(0x0a, g.n), poolNames[0]
	if halves[1].Contains(g.ip) {
		pool = poolNames[1]
	}
	return lease.Record{
		IP: g.ip, MAC: m, ClientID: append(lease.Hex{1}, m[:]...), Option82: load.Option82(2_000_000 + g.n), GIAddr: gateway,
		Interface: "access", Pool: pool, State: lease.StateBound,
		Start: now, Renewed: now, Expires: now.Add(time.Duration(cmp.Or(g.n%12, 1))*time.Hour + time.Hour),
	}
}
