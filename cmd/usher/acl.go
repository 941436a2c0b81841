package main

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/vlanname"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/garden"
	"github.com/usher-agent/usher/provision/lease"
)

// admitLimit bounds how long an acknowledgement waits until the source guard
// lets its client in. Dhcpd sends it without a commit after twice as long.
const admitLimit = 50 * time.Millisecond

// aclPolicy gives what the rules follow from.
func aclPolicy(cfg *config.Config) ruleset.Policy {
	return ruleset.Policy{Portal: cfg.Portal.Listen, SourceGuard: cfg.ACL.SourceGuard.On()}
}

// aclSources knows what the ACL follows from besides the snapshot: the
// configuration, the leases and the interfaces of this host.
type aclSources struct {
	leases *lease.Table
	names  func() []string  // of the interfaces that exist
	garden *garden.Resolver // nil: nobody has one

	enforcer atomic.Pointer[access.Enforcer]
	guarded  atomic.Pointer[config.ACLSourceGuard]
	// used are the leases in what was last wanted: whoever has another one by
	// now asks for a round. Nil: not asked for yet.
	used atomic.Pointer[map[netip.Addr]claim]
}

// claim is what a lease gives its client in the ACL.
type claim struct {
	mac        provision.MAC
	iface      string // empty: the client is behind a relay, the guard does not see it
	subscriber provision.SubscriberID
	pool       bool
}

func newACLSources(leases *lease.Table) *aclSources {
	return &aclSources{leases: leases, names: interfaceNames}
}

// use gives the Inputs of a configuration.
func (s *aclSources) use(cfg *config.Config) func() access.Inputs {
	s.guarded.Store(&cfg.ACL.SourceGuard)
	fixed := access.Inputs{GuestRanges: cfg.GuestRanges(), Exempt: cfg.ACL.Exempt.Customers, ExemptAddrs: cfg.ACL.Exempt.Addresses, Resolvers: cfg.ResolverPrefixes()}
	var templates []vlanname.Template
	for _, t := range cfg.DHCP.VLANInterfaces {
		if c, err := vlanname.Compile(t); err == nil { // the configuration has checked them
			templates = append(templates, c)
		}
	}
	return func() access.Inputs {
		in := fixed
		if s.garden != nil {
			in.Garden, in.GuestGarden = s.garden.Paused(), s.garden.Guests()
		}
		s.addInterfaces(cfg.ACL.SourceGuard, templates, &in)
		s.addLeases(cfg, &in, time.Now())
		return in
	}
}

// addLeases adds what live leases give their clients: a pool's address shares its
// subscriber's state, and what a client was told it may use where it was told.
func (s *aclSources) addLeases(cfg *config.Config, in *access.Inputs, now time.Time) {
	if len(cfg.DHCP.Pools) == 0 && !cfg.ACL.SourceGuard.On() {
		return // and so the leases, which may be many, are not read
	}
	used := map[netip.Addr]claim{}
	for rec := range s.leases.All() {
		c, ok := s.claimOf(&rec, now)
		if !ok {
			continue
		}
		used[rec.IP] = c
		if c.pool && c.subscriber != 0 {
			in.Leases = append(in.Leases, access.SubscriberAddr{Subscriber: c.subscriber, IP: rec.IP})
		}
		switch {
		case c.iface == "":
		case slices.Contains(in.GuardDirect, c.iface):
			in.BoundDirect = append(in.BoundDirect, access.DirectBinding{IP: rec.IP, MAC: c.mac})
		default: // Want takes those of guarded interfaces
			in.BoundVLAN = append(in.BoundVLAN, access.VLANBinding{Interface: c.iface, IP: rec.IP})
		}
	}
	s.used.Store(&used)
}

// claimOf gives what a lease gives its client; ok is false if nothing.
func (s *aclSources) claimOf(rec *lease.Record, now time.Time) (c claim, ok bool) {
	if !rec.Live(now) {
		return claim{}, false
	}
	c = claim{mac: rec.MAC, subscriber: rec.Subscriber, pool: rec.Pool != ""}
	if g := s.guarded.Load(); g != nil && g.On() && !rec.GIAddr.IsValid() {
		c.iface = rec.Interface
	}
	return c, c.pool || c.iface != ""
}

// addInterfaces adds the guarded interfaces, and where bindings with a VLAN live.
func (s *aclSources) addInterfaces(g config.ACLSourceGuard, templates []vlanname.Template, in *access.Inputs) {
	if !g.On() {
		return
	}
	names := s.names()
	in.GuardDirect, in.GuardVLAN = guardedNames(g.Direct, names), guardedNames(g.VLAN, names)
	// Named in both ways by two patterns: guarded by address and MAC, the stricter one.
	in.GuardVLAN = slices.DeleteFunc(in.GuardVLAN, func(name string) bool { return slices.Contains(in.GuardDirect, name) })
	at := vlanInterfaces(templates, in.GuardVLAN)
	in.InterfaceOf = func(b *provision.Binding) string { return at[b.VLAN] }
}

// guardedNames gives the interfaces that patterns mean. A plain name is guarded
// before the interface exists: there is no moment in which it is up and open.
func guardedNames(patterns, exist []string) []string {
	var out []string
	for _, p := range patterns {
		if !strings.ContainsAny(p, `*?[\`) {
			out = append(out, p)
			continue
		}
		for _, name := range exist {
			if ok, _ := path.Match(p, name); ok {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// vlanInterfaces tells which guarded interface is that of a VLAN. A VLAN with
// several interfaces (the same inner one in two outer ones) has none: only leases tell then.
func vlanInterfaces(templates []vlanname.Template, guarded []string) map[uint16]string {
	at, several := map[uint16]string{}, map[uint16]bool{}
	for _, name := range guarded {
		for _, t := range templates {
			vlan, ok := t.Match(name)
			if !ok {
				continue
			}
			if _, known := at[vlan]; known {
				several[vlan] = true
			}
			at[vlan] = name
			break
		}
	}
	maps.DeleteFunc(at, func(vlan uint16, _ string) bool { return vlan == 0 || several[vlan] })
	return at
}

// followLinks takes the names from a view of the interfaces that is kept up to
// date, and asks for a round soon after one of a pattern has come or gone.
func (s *aclSources) followLinks(ctx context.Context, view func() *provision.Interfaces) error {
	tick := time.NewTicker(linkTick)
	defer tick.Stop()
	last := view()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// A view is a new one only if something changed.
		if now := view(); now != last {
			last = now
			if e, g := s.enforcer.Load(), s.guarded.Load(); e != nil && g.On() {
				e.Kick()
			}
		}
	}
}

// linkTick is how soon a new interface is guarded, if only a pattern names it.
const linkTick = 100 * time.Millisecond

// linkNames gives the names of a view.
func linkNames(v *provision.Interfaces) []string {
	out := make([]string, 0, v.Len())
	for _, f := range v.All() {
		out = append(out, f.Name)
	}
	return out
}

// interfaceNames asks the kernel; what cannot be read is none.
func interfaceNames() []string {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(list))
	for _, f := range list {
		out = append(out, f.Name)
	}
	return out
}

// changed tells whether the lease of an address gives other rights than those in
// what was last wanted.
func (s *aclSources) changed(ip netip.Addr, now time.Time) bool {
	used := s.used.Load()
	if used == nil {
		return false // leases do not matter here, or the first round is to come
	}
	var c claim
	if rec, ok := s.leases.Get(ip); ok {
		c, _ = s.claimOf(&rec, now)
	}
	if !c.pool && c.iface == "" {
		c = claim{}
	}
	return (*used)[ip] != c
}

// admit has the kernel let clients in while their leases are written to disk.
// The acknowledgements leave after the call of wait, so that the first packet of a
// client meets its element; at most admitLimit later if the kernel is slow.
func (s *aclSources) admit(recs []lease.Commit, now time.Time) (wait func()) {
	e := s.enforcer.Load()
	if e == nil || !slices.ContainsFunc(recs, func(r lease.Commit) bool { return r.Lease.IP.IsValid() && s.changed(r.Lease.IP, now) }) {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), admitLimit)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Sync(ctx) // its error is the enforcer's to tell; the next round tries again
	}()
	return func() { <-done; cancel() }
}

// admitting is a journal whose clients the kernel lets in meanwhile.
type admitting struct {
	dhcpd.Journal
	sources *aclSources
}

// Commit implements dhcpd.Journal.
func (j admitting) Commit(recs []lease.Commit) error {
	defer j.sources.admit(recs, time.Now())()
	return j.Journal.Commit(recs)
}

// Packet implements dhcpd.Observer: what a packet changed and no commit told of,
// such as a release or another interface of the same client.
func (s *aclSources) Packet(e *dhcpd.Event) {
	if !e.YourIP.IsValid() {
		return
	}
	if enforcer := s.enforcer.Load(); enforcer != nil && s.changed(e.YourIP, e.Time) {
		enforcer.Kick()
	}
}

// Commit implements dhcpd.Observer.
func (*aclSources) Commit(int, time.Duration, error) {}

// aclView is the table of this host for the control API. It implements
// console.ACLKernel.
type aclView struct {
	*acl.Reader
	agent *agent
}

// Read implements console.ACLKernel.
func (v aclView) Read(ctx context.Context) (acl.View, error) {
	return v.Reader.Read(ctx, aclPolicy(v.agent.cfg.Load()))
}

// AsNFT implements console.ACLKernel. Of a dry run it is what would be there.
func (v aclView) AsNFT(ctx context.Context) (string, error) {
	policy := aclPolicy(v.agent.cfg.Load())
	if !v.agent.cfg.Load().ACL.DryRun {
		return v.Reader.AsNFT(ctx, policy)
	}
	want, err := v.agent.enforcer.Want()
	if err != nil {
		return "", err
	}
	return ruleset.Listing{Policy: policy, Have: want}.String(), nil
}

// maintenance is the switch with the reason for which it was thrown. It
// implements console.Maintenance.
type maintenance struct {
	table *acl.Table
	log   *slog.Logger

	mu     sync.Mutex // guards what follows
	until  time.Time
	reason string
}

// OpenFor implements console.Maintenance.
func (m *maintenance) OpenFor(ctx context.Context, d time.Duration, reason string) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, err := m.table.OpenFor(ctx, d)
	if err == nil {
		m.until, m.reason = until, reason
		m.log.Warn("an operator lets everybody through", "until", until.UTC(), "reason", reason)
	}
	return until, err
}

// Shut implements console.Maintenance.
func (m *maintenance) Shut(ctx context.Context) error { return m.table.Shut(ctx) }

// Reason implements console.Maintenance.
func (m *maintenance) Reason(until time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	// What is left in the kernel is counted in its ticks: the end moves a little when it is read back.
	if until.Sub(m.until).Abs() < time.Second {
		return m.reason
	}
	return ""
}

// aclDeps gives the control API its way to the block lists; nil if there are none.
func (a *agent) aclDeps(cfg *config.Config) *console.ACLDeps {
	if !cfg.ACL.Enabled {
		return nil
	}
	reader := acl.NewReader(acl.Options{})
	a.onClose(reader.Close)
	d := &console.ACLDeps{Wishes: a.enforcer, Kernel: aclView{reader, a}, Exempt: a.exempt}
	if a.table != nil {
		d.Maintenance = &maintenance{table: a.table, log: a.log}
	}
	return d
}

// exempt implements console.ACLDeps.Exempt.
func (a *agent) exempt(id provision.SubscriberID, addr netip.Addr) string {
	e := a.cfg.Load().ACL.Exempt
	switch {
	case id != 0 && slices.Contains(e.Customers, id):
		return "acl.exempt.customers"
	case slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return "acl.exempt.addresses"
	default:
		return ""
	}
}
