// Package acl keeps the block lists of subscribers in the kernel: one nftables
// table, "inet usher", which is ours alone. It implements access.Kernel.
//
// The table holds sets of addresses (stopped, paused, guests), of customers' subnets by length while there are any, and a base chain
// at the forward hook that looks both ends of every forwarded packet up in them.
// Packets of stopped subscribers are dropped. Paused ones and guests reach DNS
// and their garden, and HTTP leads them to the portal if there is one; all else
// is refused, so that programs at either end give up at once. The rules do not
// ask for the connection's state: a live flow ends with the commit, and a
// router without connection tracking does not start it because of us (but for
// the portal, which needs address translation). A second chain, if wanted, looks
// at the sources of what comes in by guarded interfaces.
//
// Packets to and from the router itself are not filtered, but for the source
// guard, which lets DHCP in: a blocked subscriber still gets its address.
// IPv6, which no binding names, is blocked by MAC and by interface (ruleset/ipv6.go). Flows that another table has put into a
// flowtable bypass the forward hook and so these rules too.
//
// Nothing here is removed at the end of the process: see Table.Clear.
package acl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

const (
	// chunk is how many elements travel in one netlink message. The list of
	// elements is one attribute with a 16-bit length, about 3,000 addresses.
	chunk = 1000

	// A batch is one datagram: the send buffer limits its size (20 bytes an
	// element). Each message of it that the kernel refuses comes back whole.
	sendBuffer    = 64 << 20
	receiveBuffer = 32 << 20

	// attempts bounds how often one operation starts again because the kernel
	// or somebody else changed the ruleset under it.
	attempts = 8

	tableTitle = "inet " + ruleset.TableName

	// exchangeTimeout bounds one question to the kernel. It answers within
	// the system call; the bound is for a kernel that does not.
	exchangeTimeout = 30 * time.Second
)

// Options say where the table lives.
type Options struct {
	Log *slog.Logger // nil: no log

	Policy ruleset.Policy

	// NetNS is an open file descriptor of a network namespace, for tests. Zero
	// means the namespace of the calling thread at the time of Open.
	NetNS int
}

// Table is the table "inet usher" of one network namespace. Its methods may be
// called from several goroutines; they take turns, but for those that only tell what is known.
type Table struct {
	log  *slog.Logger
	dial func() (write *nftables.Conn, read *netlink.Conn, err error)

	listen func() (*netlink.Conn, error) // for events
	owner  io.Closer                     // nil: nobody to be kept out, in tests

	eventsMu sync.Mutex      // guards what follows
	events   *netlink.Conn   // of Watch, while it runs
	wake     func()          // of Watch
	ports    map[uint32]bool // our sockets for batches, as netlink numbers them
	writers  []string        // who else wrote, not yet asked for

	mu    sync.Mutex // guards what follows: one exchange with the kernel at a time
	write *nftables.Conn
	read  *netlink.Conn

	// gen is the ruleset's generation at which the contents were last known.
	// Zero, which the kernel never uses, means that they are not known.
	gen    uint32
	counts access.SetCounts // elements, as far as we know
	stale  bool             // the caller has not seen what was found since its last Observe

	policy    ruleset.Policy
	nets      access.NetSets // sets of subnets that the table has, as far as we know
	adopted   bool           // the table was as it should be once
	fresh     bool           // there was none when it was opened
	repairs   uint64         // how often it was not, after that
	openUntil time.Time      // end of the maintenance as far as we know

	suspects map[access.Change]bool // what the kernel refused when batches were taken apart

	portalUntil time.Time // the portal was said to answer until then
	survey      survey    // of other tables in its way

	egressUp  bool                   // the table netdev has what the sets of MACs have
	egressErr string                 // why it cannot be
	gone      []string               // interfaces without which it was made, for they were not there
	hasDevice func(name string) bool // nil: the kernel is asked

	look bool  // of a Reader: nothing is repaired
	seen table // what it found

	toldMu sync.Mutex
	told   told
}

// told is what a Table tells without a question to the kernel. Who asks for it does not wait for an exchange that is
// on, which may take as long as a round: the watchdog asks too.
type told struct {
	openUntil time.Time
	obstacles []string
	trouble   string
	gen       uint32
}

// release ends an exchange with the kernel, and has told what it found.
func (t *Table) release() {
	t.toldMu.Lock()
	t.told = told{t.openUntil, t.survey.found, t.egressErr, t.gen}
	t.toldMu.Unlock()
	t.mu.Unlock()
}

// lastKnown is what was known after the last exchange.
func (t *Table) lastKnown() told {
	t.toldMu.Lock()
	defer t.toldMu.Unlock()
	return t.told
}

var (
	_ access.Kernel   = (*Table)(nil)
	_ access.Watcher  = (*Table)(nil)
	_ access.Repairer = (*Table)(nil)
	_ access.Opener   = (*Table)(nil)
	_ access.Replacer = (*Table)(nil)
)

// Open makes sure that the table is there with our rules, leaves what is in its
// sets, and gives a handle to it. A table of another schema is replaced in one
// batch that keeps the elements. It needs CAP_NET_ADMIN. The table is ours until
// Close: a second Open in the same network namespace, by any process, is refused
// with ErrOwned.
func Open(ctx context.Context, o Options) (*Table, error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	owner, err := own(o.NetNS, log)
	if err != nil {
		return nil, fmt.Errorf("acl: open: %w", err)
	}
	t := &Table{log: log, policy: o.Policy, owner: owner,
		listen: func() (*netlink.Conn, error) { return listenKernel(o.NetNS) }}
	t.dial = func() (*nftables.Conn, *netlink.Conn, error) { return dialKernel(o.NetNS, t.ownPort) }
	return open(ctx, t)
}

func open(ctx context.Context, t *Table) (*Table, error) {
	t.mu.Lock()
	defer t.release()
	if err := t.adoptLocked(ctx); err != nil {
		return nil, fmt.Errorf("acl: open: %w", errors.Join(err, t.hangUpLocked(), t.disown()))
	}
	t.stale = true
	t.log.Info("block lists adopted", "table", tableTitle, "schema", ruleset.Schema,
		"stopped", t.counts[access.SetStopped], "paused", t.counts[access.SetPaused])
	return t, nil
}

// adoptLocked makes sure that the table is as it should be. The elements of one that is are read by the first Observe alone:
// a start need not wait for hundreds of thousands of them twice.
func (t *Table) adoptLocked(ctx context.Context) error {
	if sound, err := t.soundLocked(ctx); sound && err == nil {
		t.adopted = true
		return nil
	}
	_, err := t.observeLocked(ctx)
	return err
}

// soundLocked reports whether the table is there with our rules, and takes from the kernel how many elements its sets have and whether it is open.
func (t *Table) soundLocked(ctx context.Context) (bool, error) {
	gen, err := t.generationLocked(ctx)
	if err != nil {
		return false, err
	}
	found, err := t.inspectLocked(ctx)
	if err != nil || !found.exists || found.defect != "" {
		return false, err
	}
	for set := range t.rulesLocked().Sets() {
		info, err := t.setLocked(ctx, set.String())
		if err != nil || info.count == countUnknown {
			return false, err
		}
		t.counts[set] = info.count
	}
	open, err := t.openedLocked(ctx)
	if err != nil || open.endless {
		return false, err
	}
	if _, defect, err := t.egressDefectLocked(ctx, t.egressPolicyLocked(), nil); err != nil || defect != "" {
		return false, err
	}
	t.egressUp = t.policy.Egress != ""
	after, err := t.generationLocked(ctx)
	t.gen = gen
	t.setOpenLocked(open.left)
	return after == gen, err
}

// Fresh reports whether the kernel had no table of ours when it was opened.
func (t *Table) Fresh() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fresh
}

// Close lets the sockets go. The table stays in the kernel as it is.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.hangUpLocked(), t.disown())
}

// disown lets another process have the table.
func (t *Table) disown() error {
	if t.owner == nil {
		return nil
	}
	err := t.owner.Close()
	t.owner = nil
	return err
}

// Observe reads the sets. If the table is not as it should be (dropped, edited,
// of another schema), it is put right first, with the elements that are left.
//
// The kernel gives a long set in pieces and may reorder it meanwhile, without
// saying so; a reading that shows signs of it (an element twice, a number of
// elements that differs from the kernel's count, a generation that moved) is
// repeated.
func (t *Table) Observe(ctx context.Context) (access.ACL, error) {
	t.mu.Lock()
	defer t.release()
	c, err := t.observeLocked(ctx)
	if err != nil {
		return access.ACL{}, fmt.Errorf("acl: observe: %w", err)
	}
	t.stale = false
	t.surveyLocked(ctx)
	return c, nil
}

// Replace puts a table with these elements in place of what is there, in one commit and without reading the sets: a
// maintenance goes on as far as we know of it, the counters of addresses are lost. After an error what the kernel has is not known.
func (t *Table) Replace(ctx context.Context, want access.ACL) error {
	t.mu.Lock()
	defer t.release()
	want = want.Sorted()
	err := t.replaceLocked(ctx, want)
	for attempt := 1; attempt < attempts && errors.Is(err, unix.ERESTART); attempt++ { // somebody else wrote meanwhile
		err = t.replaceLocked(ctx, want)
	}
	if err != nil {
		t.gen, t.stale = 0, true
		return fmt.Errorf("acl: replace: %w", err)
	}
	return nil
}

func (t *Table) replaceLocked(ctx context.Context, want access.ACL) error {
	gen, err := t.generationLocked(ctx)
	if err != nil {
		return err
	}
	err = t.mutedLocked(muteFrom, func() error {
		return t.flushLocked(gen, func(c *nftables.Conn) error {
			c.AddTable(ruleset.Table()) // or there is none to delete
			return queueSchema(c, t.policy, true, want, switches{time.Until(t.openUntil), time.Until(t.portalUntil)})
		})
	})
	if err != nil {
		return fmt.Errorf("build table: %w", err)
	}
	t.nets, t.counts = want.NetSets(), access.SetCounts{}
	for set := range access.Sets() {
		t.counts[set] = raw(want, set)
	}
	if gen, err = t.egressLocked(ctx, want, nextGeneration(gen), nextGeneration(gen)); err != nil {
		return err
	}
	t.gen, t.stale, t.adopted = gen, false, true
	t.repairs++
	return nil
}

// Changed tells whether somebody, us excepted, may have written to the ruleset
// since the last Observe. It costs microseconds. The generation that it compares
// is that of the whole ruleset, so a foreign table makes it true as well.
func (t *Table) Changed(ctx context.Context) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stale || slices.ContainsFunc(t.gone, t.isThereLocked) { // one that is back has no chain
		return true, nil
	}
	gen, err := t.generationLocked(ctx)
	if err != nil {
		return false, fmt.Errorf("acl: read generation: %w", err)
	}
	return gen != t.gen, nil
}

// Generation returns the ruleset's generation at which the sets were last known.
func (t *Table) Generation() uint64 {
	return uint64(t.lastKnown().gen)
}

// Apply brings the changes into the kernel in one atomic batch, additions before
// removals. Nil means that they hold: elements that were there already and
// removals of absent ones count as done. When the batch fails because the
// kernel is not as expected, or when its result is not known, Apply reads the
// sets back and sends what is still missing; the next Changed is then true.
//
// A kernel that refuses some elements does not keep the others from being applied:
// the error is an access.RefusedError then, and all but what it names holds.
//
// An address that is not IPv4, or that is both added to and removed from one
// set, is an error before anything is sent.
func (t *Table) Apply(ctx context.Context, changes []access.Change) error {
	if len(changes) == 0 {
		return nil
	}
	b, err := newBatch(changes)
	if err != nil {
		return fmt.Errorf("acl: apply: %w", err)
	}
	t.mu.Lock()
	defer t.release()
	var last error
	for attempt := range attempts {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("acl: apply: %w", errors.Join(err, last))
		}
		base := t.gen
		if attempt >= attempts/2 {
			// Somebody writes all the time. What we send has been read back
			// several times by now; an element less or more fails the batch.
			base = 0
		}
		err := t.commitLocked(ctx, b, base)
		if err == nil {
			return nil
		}
		again := errors.Is(err, unix.EEXIST) && errors.Is(last, unix.EEXIST)
		if last = err; !mayPass(err) || again { // that somebody else has put there, and it is still there
			break
		}
		t.stale = true
		if errors.Is(err, unix.ERESTART) {
			t.log.Debug("somebody else wrote meanwhile, reading back", "changes", b.len())
		} else {
			t.log.Warn("batch not confirmed, reading back", "changes", b.len(), "error", err)
		}
		have, err := t.observeLocked(ctx)
		if err != nil {
			last = err
			break
		}
		if b = b.missingFrom(have); b.len() == 0 {
			return nil
		}
	}
	if refuses(last) {
		refused, err := t.applyApartLocked(ctx, b)
		if err == nil && len(refused) == 0 {
			return nil
		}
		if err == nil {
			return fmt.Errorf("acl: apply %d changes: %w", len(changes), &access.RefusedError{Changes: refused})
		}
		last = err
	}
	return fmt.Errorf("acl: apply %d of %d changes: %w", b.len(), len(changes), last)
}

// Reconfigure takes another policy. The next Changed is true and the Observe
// after it brings the rules into the kernel, with all elements kept.
func (t *Table) Reconfigure(p ruleset.Policy) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.policy != p {
		t.policy, t.stale, t.adopted = p, true, false
	}
}

// Repairs tells how often the table itself, not only an element of it, was found
// otherwise than we had left it and was replaced.
func (t *Table) Repairs() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.repairs
}

// Clear removes the table and with it every block. It is no error if there is none.
func (t *Table) Clear(ctx context.Context) error {
	t.mu.Lock()
	defer t.release()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("acl: clear: %w", err)
	}
	t.gen, t.stale, t.adopted, t.openUntil, t.portalUntil = 0, true, false, time.Time{}, time.Time{}
	if err := t.clearEgressLocked(ctx); err != nil {
		return fmt.Errorf("acl: clear: %w", err)
	}
	err := t.flushLocked(0, func(c *nftables.Conn) error {
		c.DelTable(ruleset.Table())
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("acl: clear: %w", err)
	}
	t.log.Info("block lists removed", "table", tableTitle)
	return nil
}

// errUnconfirmed says that the kernel took a batch without an error, but the
// number of elements is not what it should be, or cannot be known.
var errUnconfirmed = errors.New("batch not confirmed")

// commitLocked sends one batch and checks what became of it. base is the
// generation that the ruleset must still have; zero: any.
func (t *Table) commitLocked(ctx context.Context, b batch, base uint32) error {
	known := t.gen != 0
	nets := t.nets | b.adds.NetSets()
	if err := t.mutedLocked(b.len(), func() error { return t.flushLocked(base, t.growing(b, nets)) }); err != nil {
		return err
	}
	t.nets = nets
	if !known {
		return fmt.Errorf("%w: earlier contents not known", errUnconfirmed)
	}
	gen, err := t.generationLocked(ctx)
	if err != nil {
		return err
	}
	for set := range b.each() {
		adds, removes := raw(b.adds, set), raw(b.removes, set)
		info, err := t.setLocked(ctx, set.String())
		if err != nil {
			return err
		}
		t.counts[set] += adds - removes
		switch {
		case info.count == countUnknown:
			// An older kernel. One message cannot be cut short and a batch
			// is refused as a whole: only longer lists are worth a reading.
			if max(adds, removes) > chunk {
				return fmt.Errorf("%w: this kernel does not count the elements of set %s", errUnconfirmed, set)
			}
		case !countFits(set, info.count, t.counts[set]):
			return fmt.Errorf("%w: set %s has %d elements, want %d", errUnconfirmed, set, info.count, t.counts[set])
		}
	}
	if gen == nextGeneration(t.gen) {
		t.gen = gen
	} // else somebody wrote besides us: gen stays behind, so that Changed tells
	return nil
}

// queueLocked returns what encodes a batch for both tables.
func (t *Table) queueLocked(b batch) func(*nftables.Conn) error {
	return func(c *nftables.Conn) error {
		err := b.queue(c)
		if err == nil && t.egressUp {
			err = b.queueEgress(c)
		}
		return err
	}
}

// flushLocked queues by f and sends all of it as one transaction; with a
// generation, only if the ruleset still has it (else the error is ERESTART).
func (t *Table) flushLocked(gen uint32, f func(*nftables.Conn) error) error {
	if err := t.dialLocked(); err != nil {
		return err
	}
	// An error in encoding is remembered by the library only until the next
	// Flush, and by an empty one not at all: it is looked at here.
	err := f(t.write)
	if err != nil {
		err = fmt.Errorf("encode batch: %w", err)
	} else if err = t.write.FlushWithGenID(gen); err != nil {
		err = fmt.Errorf("commit batch: %w", err)
	}
	if err != nil {
		_ = t.hangUpLocked() // with whatever is queued or still to be received
	}
	return err
}

// mayPass tells the failures after which another look at the kernel helps.
func mayPass(err error) bool {
	for _, errno := range []unix.Errno{
		unix.ENOENT,   // an element to remove, a set or the table is gone
		unix.EEXIST,   // an interval overlaps one that somebody else put there
		unix.ENOBUFS,  // replies were lost, the outcome is not known
		unix.EINTR,    // interrupted dump
		unix.EAGAIN,   // the kernel loads a module
		unix.ERESTART, // the generation is not the one that we based the batch on
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errors.Is(err, errUnconfirmed)
}

// nextGeneration is what one commit makes of a generation: zero is skipped.
func nextGeneration(gen uint32) uint32 {
	if gen++; gen == 0 {
		gen = 1
	}
	return gen
}

// dialLocked opens the two sockets unless they are open. Sockets stay in the
// network namespace in which they were opened.
func (t *Table) dialLocked() error {
	if t.write != nil {
		return nil
	}
	var err error
	if t.write, t.read, err = t.dial(); err != nil {
		t.write, t.read = nil, nil
		return fmt.Errorf("open netlink socket: %w", err)
	}
	return nil
}

// dialKernel opens one socket for batches and one for questions.
func dialKernel(netNS int, own func(*netlink.Conn) error) (write *nftables.Conn, read *netlink.Conn, err error) {
	write, err = low.dial(nftables.WithNetNSFd(netNS), nftables.WithSockOptions(lowNumber,
		func(c *netlink.Conn) error { return c.SetWriteBuffer(sendBuffer) },
		func(c *netlink.Conn) error { return c.SetReadBuffer(receiveBuffer) },
		explain, own,
	))
	if err != nil {
		return nil, nil, err
	}
	// Each buffer of a dump makes the kernel walk the set from its head: with
	// 32 KiB, the most that it fills, 100,000 elements take 0.16 s, with the
	// pages of the library above 1.4 s.
	read, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netNS, MessageBufferSize: 32 << 10})
	if err != nil {
		_ = write.CloseLasting()
		return nil, nil, err
	}
	if err = explain(read); err != nil {
		_ = read.Close()
		_ = write.CloseLasting()
		return nil, nil, err
	}
	return write, read, nil
}

// explain asks the kernel for its own words with each error. An old kernel has none.
func explain(c *netlink.Conn) error {
	// Not together with CapAcknowledge: the netlink library looks for the
	// words behind the refused message, which is then not there.
	if err := c.SetOption(netlink.ExtendedAcknowledge, true); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return err
	}
	return nil
}

// hangUpLocked closes the sockets. It is also the answer to every failure: late
// replies to the failed question may wait in them. The next question dials again.
func (t *Table) hangUpLocked() error {
	var errs []error
	if t.write != nil {
		errs = append(errs, t.write.CloseLasting())
	}
	if t.read != nil {
		errs = append(errs, t.read.Close())
	}
	t.write, t.read = nil, nil
	low.refill() // before somebody else has the number
	return errors.Join(errs...)
}
