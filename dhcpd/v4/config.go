package v4

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/options"
)

const (
	defaultServerPort = 67
	defaultClientPort = 68
	minLeaseTime      = time.Minute
)

// Config is Options made ready for the packet path. It never changes.
type Config struct {
	line          *line.Config
	relayPort     uint16
	clientPort    uint16
	serverID      netip.Addr
	match         []MatchKind
	matches       MatchKind // all of match
	authoritative bool
	rapidCommit   bool
	leaseQuery    []netip.Prefix
	classes       options.Classes
	subnets       []subnet // longest prefix first
	shared        []SharedNetwork
	unknown       Unknown
	pools         []dynamicPool
	quarantine    time.Duration

	clientIDs     map[string]netip.Addr // by option 61
	clientKey     ClientKey
	macChange     MACChange
	maxMACs       int // of a port; 0: no limit
	bindingChange BindingChange
}

type subnet struct {
	prefix          netip.Prefix
	wire            int // number of the wire, from 1: of several that share one the same
	gateway         netip.Addr
	serverID        netip.Addr
	lease           time.Duration
	seconds, t1, t2 uint32
	options         options.Sets
	alwaysBroadcast bool
}

// Compile checks o and makes it ready. It reports every mistake.
func Compile(o Options) (*Config, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	cfg := &Config{
		relayPort:     cmp.Or(o.RelayPort, defaultServerPort),
		clientPort:    cmp.Or(o.ClientPort, defaultClientPort),
		serverID:      o.ServerID,
		match:         slices.Clone(o.Match),
		authoritative: o.Authoritative,
		rapidCommit:   o.RapidCommit,
		leaseQuery:    slices.Clone(o.LeaseQuery.From),
	}
	var err error
	if cfg.line, err = line.Compile(o.Options); err != nil {
		errs = append(errs, err)
	}
	for i, p := range cfg.leaseQuery {
		if !p.Addr().Is4() {
			fail("leasequery from %v: want an IPv4 prefix", p)
		}
		cfg.leaseQuery[i] = p.Masked()
	}
	if o.ServerID.IsValid() && !o.ServerID.Is4() {
		fail("server id %v: want an IPv4 address", o.ServerID)
	}
	if len(cfg.match) == 0 {
		cfg.match = []MatchKind{MatchOption82, MatchMAC}
	}
	for _, m := range cfg.match {
		if m == 0 || m >= matchEnd {
			fail("match %d: no such kind", m)
		}
		cfg.matches |= m
	}
	if err := cfg.compileMatching(o); err != nil {
		errs = append(errs, err)
	}
	if cfg.classes, err = options.CompileClasses(o.Classes); err != nil {
		errs = append(errs, err)
	}
	for _, n := range o.Subnets {
		c, err := cfg.compileSubnet(o.Common, n)
		if err != nil {
			fail("subnet %v: %w", n.Prefix, err)
			continue
		}
		if slices.ContainsFunc(cfg.subnets, func(x subnet) bool { return x.prefix == c.prefix }) {
			fail("subnet %v: given twice", n.Prefix)
		}
		cfg.subnets = append(cfg.subnets, c)
	}
	slices.SortStableFunc(cfg.subnets, func(a, b subnet) int { return b.prefix.Bits() - a.prefix.Bits() })
	if err := cfg.compileShared(o.SharedNetworks); err != nil {
		errs = append(errs, err)
	}
	if err := cfg.compilePools(o); err != nil {
		errs = append(errs, err)
	}
	return cfg, errors.Join(errs...)
}

// compileMatching checks what goes with the ways of matching and makes it ready.
func (cfg *Config) compileMatching(o Options) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	cfg.clientKey, cfg.macChange, cfg.maxMACs, cfg.bindingChange = o.ClientKey, o.MACChange, o.MaxPortMACs, o.BindingChange
	cfg.clientIDs = make(map[string]netip.Addr, len(o.ClientIDs))
	for _, c := range o.ClientIDs {
		values := c.Values()
		if err := c.Check(); err != nil || !c.IP.Is4() {
			fail("client id %x for %v: want an IPv4 address and an identifier: %w", values[0], c.IP, err)
			continue
		}
		for _, v := range values {
			if _, twice := cfg.clientIDs[v]; twice {
				fail("client id %x: given twice", values[0])
			}
			cfg.clientIDs[v] = c.IP
		}
	}
	// Many clients end a text with the NUL of a string in C. Who lists those very bytes has the word.
	for _, c := range o.ClientIDs {
		for _, v := range c.Values() {
			if _, listed := cfg.clientIDs[v+"\x00"]; c.Text != "" && !listed {
				cfg.clientIDs[v+"\x00"] = c.IP
			}
		}
	}
	if o.ClientKey > ClientKeyID || o.MACChange > MACRefuse || o.BindingChange > BindingShorten {
		fail("client key %d, mac change %d, binding change %d: no such word", o.ClientKey, o.MACChange, o.BindingChange)
	}
	if o.MaxPortMACs < 0 || o.MaxPortMACs > maxPortMACs {
		fail("macs per port %d: want 0 to %d", o.MaxPortMACs, maxPortMACs)
	}
	return errors.Join(errs...)
}

func (cfg *Config) compileSubnet(common options.OptionSet, n Subnet) (subnet, error) {
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
	if t1 < time.Second || t1 > t2 || t2 > n.LeaseTime { // option 58 has whole seconds, and none means at once
		return subnet{}, fmt.Errorf("times: want 1s <= renew %v <= rebind %v <= lease %v", t1, t2, n.LeaseTime)
	}
	sets, err := options.Compile(n.Prefix, n.Gateway, cfg.classes, common, n.OptionSet)
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

// subnetOf returns the smallest configured subnet that holds ip, or nil.
func (c *Config) subnetOf(ip netip.Addr) *subnet {
	if !ip.Is4() {
		return nil
	}
	for i := range c.subnets {
		if c.subnets[i].prefix.Contains(ip) {
			return &c.subnets[i]
		}
	}
	return nil
}

// Line returns what says where clients are attached.
func (c *Config) Line() *line.Config { return c.line }

// ReadsOption82 reports whether any way of matching asks option 82.
func (c *Config) ReadsOption82() bool { return c.matches&MatchOption82 != 0 }

// LeaseQueryFrom returns the prefixes of access nodes that may ask who has an address.
func (c *Config) LeaseQueryFrom() []netip.Prefix { return slices.Clone(c.leaseQuery) }

// ClientPort returns the port of clients.
func (c *Config) ClientPort() uint16 { return c.clientPort }

// ServerIDs lists the configured server identifiers, each once.
func (c *Config) ServerIDs() []netip.Addr {
	var out []netip.Addr
	add := func(a netip.Addr) {
		if a.IsValid() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	add(c.serverID)
	for i := range c.subnets {
		add(c.subnets[i].serverID)
	}
	return out
}
