package dhcpd

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path"
	"slices"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
)

const (
	defaultServerPort    = 67
	defaultClientPort    = 68
	defaultCommitTimeout = 100 * time.Millisecond
	minLeaseTime         = time.Minute
)

// settings are Options made ready for the packet path. They never change.
type settings struct {
	listen        netip.AddrPort
	relayPort     uint16
	clientPort    uint16
	interfaces    []string
	serverID      netip.Addr
	holding       netip.Addr
	limits        limits
	match         []MatchKind
	matches       MatchKind // all of match
	line          *line.Config
	authoritative bool
	rapidCommit   bool
	leaseQuery    []netip.Prefix
	classes       []class
	subnets       []subnet // longest prefix first
	unknown       Unknown
	pools         []dynamicPool
	quarantine    time.Duration
	commitTimeout time.Duration

	clientIDs     map[string]netip.Addr // by option 61
	clientKey     ClientKey
	macChange     MACChange
	maxMACs       int // of a port; 0: no limit
	bindingChange BindingChange
}

type subnet struct {
	prefix          netip.Prefix
	gateway         netip.Addr
	serverID        netip.Addr
	lease           time.Duration
	seconds, t1, t2 uint32
	options         optionSets
	alwaysBroadcast bool
}

// compile checks o and makes it ready. It reports every mistake.
func compile(o Options) (*settings, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s := &settings{
		listen:        o.Listen,
		relayPort:     cmp.Or(o.RelayPort, defaultServerPort),
		clientPort:    cmp.Or(o.ClientPort, defaultClientPort),
		interfaces:    slices.Clone(o.Interfaces),
		serverID:      o.ServerID,
		holding:       o.AnswerWhileHolding,
		match:         slices.Clone(o.Match),
		authoritative: o.Authoritative,
		rapidCommit:   o.RapidCommit,
		leaseQuery:    slices.Clone(o.LeaseQuery),
		commitTimeout: cmp.Or(o.CommitTimeout, defaultCommitTimeout),
	}
	if !o.Listen.Addr().Is4() {
		fail("listen %v: want an IPv4 address and port", o.Listen)
	}
	for _, p := range o.Interfaces {
		if _, err := path.Match(p, ""); err != nil {
			fail("interface %q: %w", p, err)
		}
	}
	for i, p := range s.leaseQuery {
		if !p.Addr().Is4() {
			fail("leasequery from %v: want an IPv4 prefix", p)
		}
		s.leaseQuery[i] = p.Masked()
	}
	if o.ServerID.IsValid() && !o.ServerID.Is4() {
		fail("server id %v: want an IPv4 address", o.ServerID)
	}
	if o.AnswerWhileHolding.IsValid() && !o.AnswerWhileHolding.Is4() {
		fail("answer while holding %v: want an IPv4 address", o.AnswerWhileHolding)
	}
	if err := s.limits.compile(o.Limits); err != nil {
		errs = append(errs, err)
	}
	if len(s.match) == 0 {
		s.match = []MatchKind{MatchOption82, MatchMAC}
	}
	for _, m := range s.match {
		if m == 0 || m >= matchEnd {
			fail("match %d: no such kind", m)
		}
		s.matches |= m
	}
	if err := s.compileMatching(o); err != nil {
		errs = append(errs, err)
	}
	var err error
	if s.line, err = line.Compile(o.Options); err != nil {
		errs = append(errs, err)
	}
	if s.commitTimeout < 0 {
		fail("commit timeout %v: negative", s.commitTimeout)
	}
	for _, c := range o.Classes {
		made, err := compileClass(c)
		if err != nil {
			fail("class %s: %w", c.Name, err)
		}
		s.classes = append(s.classes, made)
	}
	for _, n := range o.Subnets {
		c, err := compileSubnet(&o, n)
		if err != nil {
			fail("subnet %v: %w", n.Prefix, err)
			continue
		}
		if slices.ContainsFunc(s.subnets, func(x subnet) bool { return x.prefix == c.prefix }) {
			fail("subnet %v: given twice", n.Prefix)
		}
		s.subnets = append(s.subnets, c)
	}
	slices.SortStableFunc(s.subnets, func(a, b subnet) int { return b.prefix.Bits() - a.prefix.Bits() })
	if err := s.compilePools(o); err != nil {
		errs = append(errs, err)
	}
	return s, errors.Join(errs...)
}

func compileSubnet(o *Options, n Subnet) (subnet, error) {
	if !n.Prefix.IsValid() || !n.Prefix.Addr().Is4() {
		return subnet{}, errors.New("want an IPv4 prefix")
	}
	if n.Gateway.IsValid() && !n.Gateway.Is4() {
		return subnet{}, fmt.Errorf("gateway %v: want an IPv4 address", n.Gateway)
	}
	if n.ServerID.IsValid() && !n.ServerID.Is4() {
		return subnet{}, fmt.Errorf("server id %v: want an IPv4 address", n.ServerID)
	}
	if n.LeaseTime < minLeaseTime || n.LeaseTime/time.Second >= math.MaxUint32 {
		return subnet{}, fmt.Errorf("lease time %v: want at least %v", n.LeaseTime, minLeaseTime)
	}
	t1 := cmp.Or(n.RenewTime, n.LeaseTime/2)
	t2 := cmp.Or(n.RebindTime, n.LeaseTime*7/8)
	if t1 <= 0 || t1 > t2 || t2 > n.LeaseTime {
		return subnet{}, fmt.Errorf("times: want 0 < renew %v <= rebind %v <= lease %v", t1, t2, n.LeaseTime)
	}
	sets, err := compileOptionSets(n.Prefix, n.Gateway, o.Classes, o.Common, n.OptionSet)
	if err != nil {
		return subnet{}, err
	}
	return subnet{
		prefix:   n.Prefix.Masked(),
		gateway:  n.Gateway,
		serverID: n.ServerID,
		lease:    n.LeaseTime,
		seconds:  uint32(n.LeaseTime / time.Second),
		t1:       uint32(t1 / time.Second),
		t2:       uint32(t2 / time.Second),
		options:  sets,

		alwaysBroadcast: n.AlwaysBroadcast,
	}, nil
}

// subnetOf gives the smallest configured subnet that holds ip, or nil.
func (s *settings) subnetOf(ip netip.Addr) *subnet {
	if !ip.Is4() {
		return nil
	}
	for i := range s.subnets {
		if s.subnets[i].prefix.Contains(ip) {
			return &s.subnets[i]
		}
	}
	return nil
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

// loopback reports the unprivileged mode: replies leave by UDP only.
func (s *settings) loopback() bool { return s.listen.Addr().IsLoopback() }
