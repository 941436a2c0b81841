package dhcpd

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"time"

	"github.com/usher-agent/usher/dhcpd/v4"
)

// Options is what the server runs with. Compiled once by New and Reload.
type Options struct {
	// Interfaces to answer on, by name or pattern ("eth1.*", quoted); they may come
	// and go. Empty: all but loopback.
	Interfaces []string `cfg:"interfaces" read:"interface" unique:"true"`

	// Where packets are received. One socket serves all interfaces. A loopback
	// address is for trying the agent without privileges: it then answers relays.
	Listen netip.AddrPort `cfg:"listen" read:"ipv4_listen" default:"0.0.0.0:67" restart:"true"` // a loopback address: unprivileged mode, UDP only

	// Answer only while this host has this address, which keepalived or the like
	// moves between routers. Empty: always.
	AnswerWhileHolding netip.Addr `cfg:"answer_while_holding" after:"server_id"`

	// Packets a second that are taken from one sender in the long run, and how many
	// at once after a pause; what is more is dropped and counted. Whoever floods uses
	// up the own share only; whose that is, docs/dhcp-interfaces.md tells in a table. rate: 0 is no limit.
	Limits Limits `cfg:"limits"`

	v4.Options `cfg:",inline" after:"listen"` // what decides about a packet

	CommitTimeout time.Duration          // how long an ACK waits for the disk; 0: 100 ms
	HostRoutes    func(name string) bool // whether leases on an interface get host routes; nil: on none
}

const defaultCommitTimeout = 100 * time.Millisecond

// settings are Options made ready for the packet path. They never change.
type settings struct {
	config        *v4.Config
	listen        netip.AddrPort
	interfaces    []string
	holding       netip.Addr
	limits        limits
	commitTimeout time.Duration
	hostRoutes    func(name string) bool // nil: on none
}

// generation is what packets are handled with from one Reload to the next. It is
// published by one atomic pointer, so that a packet never meets the configuration
// of one and the pools of another. It does not change; the allocators that its
// pools point to do, and those of pools that stay as they are go on to the next.
type generation struct {
	*settings
	pools *pools
}

// compile checks o and makes it ready, with pools that are unused yet. It reports
// every mistake.
func compile(o Options) (*generation, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s := &settings{
		listen:        o.Listen,
		interfaces:    slices.Clone(o.Interfaces),
		holding:       o.AnswerWhileHolding,
		commitTimeout: cmp.Or(o.CommitTimeout, defaultCommitTimeout),
		hostRoutes:    o.HostRoutes,
	}
	if !o.Listen.Addr().Is4() {
		fail("listen %v: want an IPv4 address and port", o.Listen)
	}
	for _, p := range o.Interfaces {
		if _, err := path.Match(p, ""); err != nil {
			fail("interface %q: %w", p, err)
		}
	}
	if o.AnswerWhileHolding.IsValid() && !o.AnswerWhileHolding.Is4() {
		fail("answer while holding %v: want an IPv4 address", o.AnswerWhileHolding)
	}
	if err := s.limits.compile(o.Limits); err != nil {
		errs = append(errs, err)
	}
	if s.commitTimeout < 0 {
		fail("commit timeout %v: negative", s.commitTimeout)
	}
	var err error
	if s.config, err = v4.Compile(o.Options); err != nil {
		errs = append(errs, err)
	}
	pools, err := newPools(s.config)
	if err != nil {
		errs = append(errs, err)
	}
	return &generation{s, pools}, errors.Join(errs...)
}

// serves reports whether packets from an interface are answered.
func (s *settings) serves(name string, loopback bool) bool {
	if len(s.interfaces) == 0 {
		return !loopback || s.loopback()
	}
	for _, p := range s.interfaces {
		if p == name {
			return true
		}
		if ok, _ := path.Match(p, name); ok { // compile checked the pattern
			return true
		}
	}
	return loopback && s.loopback()
}

// routesHosts reports whether leases on an interface get host routes.
func (s *settings) routesHosts(name string) bool { return s.hostRoutes != nil && s.hostRoutes(name) }

// loopback reports the unprivileged mode: replies leave by UDP only.
func (s *settings) loopback() bool { return s.listen.Addr().IsLoopback() }
