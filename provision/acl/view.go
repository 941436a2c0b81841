package acl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// Reader looks at the table without owning it, and changes nothing: beside an
// agent, in a dry run, or where none runs. Its methods may be called from
// several goroutines; they take turns. It needs CAP_NET_ADMIN.
type Reader struct{ t *Table }

// View is the table at one moment.
type View struct {
	Exists     bool
	Defect     string     // how its rules or sets differ from those of the policy; empty: they do not
	ACL        access.ACL // what its sets hold, sorted
	Generation uint64     // of the whole ruleset
	OpenUntil  time.Time  // maintenance: everybody passes; zero: none
}

// NewReader makes a Reader. It opens its sockets with the first question.
func NewReader(o Options) *Reader {
	t := &Table{log: slog.New(slog.DiscardHandler), policy: o.Policy, look: true}
	t.dial = func() (*nftables.Conn, *netlink.Conn, error) { return dialKernel(o.NetNS, t.ownPort) }
	return &Reader{t}
}

// Close lets the sockets go.
func (r *Reader) Close() error { return r.t.Close() }

// Read reads everything back. The rules are compared with those of the policy.
func (r *Reader) Read(ctx context.Context, p ruleset.Policy) (View, error) {
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.policy = p
	c, err := t.observeLocked(ctx)
	if err != nil {
		return View{}, fmt.Errorf("acl: read: %w", err)
	}
	return View{Exists: t.seen.exists, Defect: t.seen.defect, ACL: c, Generation: uint64(t.gen), OpenUntil: t.openUntil}, nil
}

// Sets tells in which of the sets of addresses one address is, in their order, and with its subnet in which of those of
// blocked subnets.
// A table or set that is not there holds nobody.
func (r *Reader) Sets(ctx context.Context, addr netip.Addr) ([]access.Set, error) {
	if addr = addr.Unmap(); !addr.Is4() {
		return nil, fmt.Errorf("acl: %s is not IPv4", addr)
	}
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	nets, _, err := r.t.netsLocked(ctx)
	if err != nil {
		return nil, fmt.Errorf("acl: %w", err)
	}
	var out []access.Set
	for set := range access.Sets() {
		holds := r.t.holdsLocked
		if kind, _, _ := set.Subnet(); nets.Has(set) && kind.Of(access.PartAddr) {
			holds = r.t.netHoldsLocked
		} else if !set.Of(access.PartAddr) {
			continue
		}
		in, err := holds(ctx, set, addr)
		if err != nil {
			return nil, fmt.Errorf("acl: %w", err)
		}
		if in {
			out = append(out, set)
		}
	}
	return out, nil
}

// Counters is Table.Counters.
func (r *Reader) Counters(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]access.Counter, error) {
	return r.t.Counters(ctx, addrs)
}

// Remove takes the table out of the kernel, and with it every block. It is
// refused with ErrOwned while an agent keeps the table, which would put it back.
func Remove(ctx context.Context, o Options) (err error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	owner, err := own(o.NetNS, log)
	if err != nil {
		return fmt.Errorf("acl: remove: %w", err)
	}
	r := NewReader(o)
	r.t.owner = owner
	defer func() { err = errors.Join(err, r.Close()) }()
	return r.t.Clear(ctx)
}

// AsNFT is Table.AsNFT for a table of a policy.
func (r *Reader) AsNFT(ctx context.Context, p ruleset.Policy) (string, error) {
	r.t.mu.Lock()
	r.t.policy = p
	r.t.mu.Unlock()
	return r.t.AsNFT(ctx)
}
