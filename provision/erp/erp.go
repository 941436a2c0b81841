// Package erp fetches what provision needs from the UserSide ERP and sends back
// what the agent reports.
//
// Bindings come from one of two places. The direct one is the action
// get_ip_port_device_commutation, made for DHCP servers. Where the ERP does not
// have it, does not allow it, or answers something unknown, bindings are
// composed of customers, commutation and devices (API page section 5.4), and so
// they are while the direct source has not a single row. An ERP that cannot be reached, or that answers no sound JSON, is never a reason
// to change the source: such a fetch fails, and the last snapshot stays.
package erp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// Mode says where bindings come from.
type Mode string

// The modes, as in the configuration key erp.bindings.
const (
	ModeAuto     Mode = "auto"     // direct if the ERP offers it, else composed
	ModeDirect   Mode = "direct"   // only get_ip_port_device_commutation
	ModeComposed Mode = "composed" // only customers, commutation and devices
)

// Options of a Fetcher. Fields with a tag are keys of the configuration (package
// config). Zero values mean the stated defaults.
type Options struct {
	// Where address, MAC and port of subscribers come from: direct asks
	// get_ip_port_device_commutation; composed joins customers, commutation and
	// devices; auto takes direct and falls back to composed.
	Bindings Mode `cfg:"bindings" oneof:"auto direct composed" default:"auto"` // empty: auto

	// Ids in one get_data call. 1 to 1000.
	BatchSize int          `cfg:"batch_size" default:"100" min:"1" max:"1000"` // zero: 200
	Log       *slog.Logger // nil: nowhere

	RetryDirect int // in auto mode, try the direct source again after this many composed fetches at most; 20
	MaxAsk      int // customers in no state list that one direct fetch asks for one by one list; 2000
	MaxChains   int // customers whose cabling one composed fetch follows to its end; 100
	MaxFlags    int // customers whose card one direct fetch reads at most for the flags and subnets on it; 1000000

	// What one answer of one source may change at once, as the fetch guard has it for moves.
	MaxMoved   *float64 // share of the rows; nil: 10 %
	MinChanged *int     // so many rows are never too many; nil: 20

	Policy *provision.Policy // what states and flags mean; nil: provision.PlainPolicy
	Memory *Memory           // of an earlier Fetcher for the same ERP; nil: a new one
}

// Fetcher reads the ERP. It implements syncer.Fetcher, StateFetcher and
// CustomerFetcher, and Sender of the outbox. Fetch runs once at a time, the
// other methods beside it and each other: what a whole fetch reads is in a lane
// of its own (userside.LaneBulk), so nothing else waits for an answer to it.
type Fetcher struct {
	client *userside.Client
	opts   Options
	policy provision.Policy
	memory *Memory
	log    *slog.Logger
	now    func() time.Time

	// Of Fetch alone:
	source   provision.Source // in use; empty before the first success
	composed int              // composed fetches since direct was last tried
	patience int              // so many are made before it is tried again: one after the first failure, then twice as many as before
	chains   chainCache

	turns atomic.Int64 // Fetches begun; polls of states beside it go by it too

	mu   sync.Mutex             // guards told and asks
	told map[string]bool        // conditions that were logged and still hold
	asks map[lasting]fetchesFor // what polls of states ask a whole fetch for, as long as it holds

	fallback atomic.Pointer[syncer.Fallback] // nil: direct, or composed as configured

	lists     cardLists
	lastFetch time.Time // when cards were read last

	cardsHung     atomic.Bool // the last poll of states waited for cards in vain
	unreadAtFirst atomic.Bool // the first whole fetch had no time for all cards, and none followed yet
}

// New checks the options.
func New(client *userside.Client, o Options) (*Fetcher, error) {
	if client == nil {
		return nil, errors.New("erp: no client")
	}
	switch o.Bindings {
	case "":
		o.Bindings = ModeAuto
	case ModeAuto, ModeDirect, ModeComposed:
	default:
		return nil, fmt.Errorf("erp: bindings: %q is none of auto, direct, composed", o.Bindings)
	}
	for _, d := range []struct {
		v    *int
		name string
		def  int
	}{
		{&o.BatchSize, "batch size", 200}, {&o.RetryDirect, "retry direct", 20},
		{&o.MaxAsk, "max ask", 2000}, {&o.MaxChains, "max chains", 100},
		{&o.MaxFlags, "max flags", 1_000_000},
	} {
		if *d.v < 0 {
			return nil, fmt.Errorf("erp: %s: %d is negative", d.name, *d.v)
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.MaxMoved == nil {
		o.MaxMoved = new(0.1)
	}
	if o.MinChanged == nil {
		o.MinChanged = new(20)
	}
	if *o.MaxMoved < 0 || *o.MinChanged < 0 {
		return nil, fmt.Errorf("erp: max moved %v, min changed %d: negative", *o.MaxMoved, *o.MinChanged)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	policy := provision.PlainPolicy()
	if o.Policy != nil {
		policy = *o.Policy
	}
	if o.Memory == nil {
		o.Memory = NewMemory()
	}
	return &Fetcher{client: client, opts: o, policy: policy, memory: o.Memory, log: log, now: time.Now, told: make(map[string]bool), asks: make(map[lasting]fetchesFor)}, nil
}

// Fetch reads everything once. prev, which may be nil, supplies the state of
// customers that cannot all be asked in one fetch, and the ports of customers
// whose cabling was not followed yet.
func (f *Fetcher) Fetch(ctx context.Context, prev *provision.Snapshot) (provision.Input, error) {
	ctx = userside.WithLane(ctx, userside.LaneBulk)
	f.turns.Add(1)
	b := f.newBatch(prev)
	if f.tryDirect() {
		err := b.direct(ctx)
		switch {
		case err == nil:
			f.use(ctx, provision.SourceDirect, nil)
			b.in.FirstRead = f.memory.firstReadOnes(&f.policy, prev)
			return b.in, nil
		case f.opts.Bindings == ModeDirect || !noDirect(err) || b.rowsRead:
			b.blame(ctx, err)
			return provision.Input{}, err
		}
		began := b.in.FetchedAt
		b = f.newBatch(prev)
		b.in.FetchedAt, b.directErr = began, err
		f.composed, f.patience = 0, min(max(2*f.patience, 1), f.opts.RetryDirect)
	}
	err := b.compose(ctx)
	if errors.Is(b.directErr, errNoRows) {
		f.composed, f.patience = f.opts.RetryDirect, 0 // to ask for no row is one call
		if noDirect(err) || err == nil && len(b.in.Lines) == 0 {
			return f.nobody(ctx, prev)
		}
	}
	if err != nil {
		if b.directErr != nil {
			err = fmt.Errorf("%w (direct source: %w)", err, b.directErr)
		}
		b.blame(ctx, err)
		return provision.Input{}, err
	}
	f.composed++
	f.use(ctx, provision.SourceComposed, b.directErr)
	return b.in, nil
}

// errNoRows says that the direct source answers, but not a single row.
var errNoRows = errors.New("get_ip_port_device_commutation answers no row")

// nobody is a fetch by an ERP that has no row by either source.
func (f *Fetcher) nobody(ctx context.Context, prev *provision.Snapshot) (provision.Input, error) {
	b := f.newBatch(prev)
	b.rowless = true
	if err := b.direct(ctx); err != nil {
		b.blame(ctx, err)
		return provision.Input{}, err
	}
	f.use(ctx, provision.SourceDirect, nil)
	return b.in, nil
}

// Fallback tells why bindings are composed though the direct source is preferred,
// and when that is tried again; nil: they are not. It implements syncer.FallbackTeller.
func (f *Fetcher) Fallback() *syncer.Fallback { return f.fallback.Load() }

// tryDirect reports whether this fetch begins with the direct source.
func (f *Fetcher) tryDirect() bool {
	switch f.opts.Bindings {
	case ModeDirect:
		return true
	case ModeComposed:
		return false
	}
	return f.source != provision.SourceComposed || f.composed >= f.patience
}

// noDirect reports whether an error means that this ERP does not offer the
// direct source to this key, or has nothing in it. The ERP being down or answering garbage does not.
func noDirect(err error) bool {
	return errors.Is(err, errNoRows) || errors.Is(err, userside.ErrPermission) || errors.Is(err, userside.ErrRefused) ||
		errors.Is(err, userside.ErrNotFound) || errors.Is(err, userside.ErrUnknownShape)
}

// use notes the source of a fetch, and logs it if it is another one; why is what
// came of the direct source, nil where it was not tried.
func (f *Fetcher) use(ctx context.Context, src provision.Source, why error) {
	f.noteFallback(src, why)
	f.wholeFetched()
	if f.source == src {
		return
	}
	attrs := []any{"source", string(src)}
	if f.source != "" {
		attrs = append(attrs, "was", string(f.source))
	}
	if why != nil {
		attrs = append(attrs, "reason", why.Error())
		f.log.WarnContext(ctx, "bindings are composed, the direct source is not usable", attrs...)
	} else {
		f.log.InfoContext(ctx, "source of bindings chosen", attrs...)
	}
	f.source = src
}

func (f *Fetcher) noteFallback(src provision.Source, why error) {
	if src != provision.SourceComposed || f.opts.Bindings == ModeComposed {
		f.composed, f.patience = 0, 0
		f.fallback.Store(nil)
		return
	}
	var now syncer.Fallback
	if was := f.fallback.Load(); was != nil {
		now = *was
	} else {
		now.Since = f.now()
	}
	if why != nil {
		now.Reason = why.Error()
	}
	now.Fetches = max(f.patience-f.composed, 0) + 1
	f.fallback.Store(&now)
}

// once logs a condition when it begins, and again after it went away and came back.
func (f *Fetcher) once(ctx context.Context, condition string, holds bool, err error, attrs ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if holds && !f.told[condition] {
		f.log.WarnContext(ctx, "erp answers only in part", append([]any{"condition", condition, "error", err}, attrs...)...)
	}
	if f.told[condition] && !holds {
		f.log.InfoContext(ctx, "erp answers in full again", append([]any{"condition", condition}, attrs...)...)
	}
	f.told[condition] = holds
}

// SetMAC reports the MAC that uses an address. A refusal by the ERP is
// provision.ErrRefused; everything else may be tried again, also what is
// provision.ErrUncertain.
func (f *Fetcher) SetMAC(ctx context.Context, ip netip.Addr, mac provision.MAC) error {
	return f.refusal(ctx, f.client.SetMACByIP(ctx, ip, userside.MAC(mac)))
}

// MACOf reads the MAC that the ERP has for an address now, on the card of one of some customers; zero: it has none. If none of them
// has the address, the error is provision.ErrNoRow. That is one call.
func (f *Fetcher) MACOf(ctx context.Context, ip netip.Addr, ids ...provision.SubscriberID) (provision.MAC, error) {
	var want []int64
	for _, id := range ids {
		if id > 0 && !slices.Contains(want, int64(id)) {
			want = append(want, int64(id))
		}
	}
	got, err := f.client.Customers(ctx, want)
	if err != nil {
		return provision.MAC{}, err
	}
	for i := range got.Customers {
		for _, a := range got.Customers[i].Addresses {
			if a.IP == ip {
				return provision.MAC(a.MAC), nil
			}
		}
	}
	return provision.MAC{}, provision.ErrNoRow
}

// ChangeState sets the state of a customer. A refusal by the ERP is
// provision.ErrRefused; what may have been done is provision.ErrUncertain, and HasState tells.
func (f *Fetcher) ChangeState(ctx context.Context, id provision.SubscriberID, state provision.State) error {
	n, ok := state.ERP()
	if !ok {
		return fmt.Errorf("erp: customer %d: state %s cannot be set", id, state)
	}
	return f.refusal(ctx, f.client.ChangeState(ctx, int64(id), n))
}

// HasState reports whether the card of a customer has a state, as ChangeState sets it. That is one call.
func (f *Fetcher) HasState(ctx context.Context, id provision.SubscriberID, state provision.State) (bool, error) {
	c, err := f.client.Customer(ctx, int64(id))
	if err != nil {
		return false, err
	}
	n, ok := state.ERP()
	has := stateID(c.State)
	if has == noStateID {
		return false, fmt.Errorf("erp: the card of customer %d tells no state", id)
	}
	return ok && has == n, nil
}

// refusal marks the errors that say "never", and those after which nobody knows. A wrong key or a missing section
// is not one of them: an administrator can mend it.
//
// An old ERP says both with status 200 and an error text (API page section
// 2.2), and texts mean nothing. So there a read with the same key and section
// must succeed before a "no" counts as one about this change.
func (f *Fetcher) refusal(ctx context.Context, err error) error {
	if errors.Is(err, userside.ErrUncertain) {
		return fmt.Errorf("%w: %w", provision.ErrUncertain, err)
	}
	if !errors.Is(err, userside.ErrRefused) && !errors.Is(err, userside.ErrNotFound) && !errors.Is(err, userside.ErrArgument) {
		return err
	}
	var e *userside.Error
	if errors.As(err, &e) && e.Status == http.StatusOK {
		active := 2
		ctx = userside.WithLane(ctx, userside.LaneUrgent)
		if _, probe := f.client.CustomerIDs(ctx, userside.CustomerFilter{State: &active, Limit: 1}); probe != nil {
			return fmt.Errorf("%w (and reads fail too: %w)", err, probe)
		}
	}
	return fmt.Errorf("%w: %w", provision.ErrRefused, err)
}

// Budget tells how many requests the ERP gets.
func (f *Fetcher) Budget() userside.Budget { return f.client.Budget() }

// Pending returns the calls that the ERP has not answered yet, the oldest first.
func (f *Fetcher) Pending() []userside.Pending { return f.client.Pending() }

// System tells the version of the ERP; it is a cheap test of URL and key.
func (f *Fetcher) System(ctx context.Context) (*userside.SystemInfo, error) {
	return f.client.SystemInfo(ctx)
}
