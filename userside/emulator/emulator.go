package emulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what is emulated. Only Keys must be given.
type Options struct {
	// Path is the bbolt file of the data; empty: memory only. A file that holds
	// data is used as it is: Seed and Customers then have no effect.
	Path string
	// Keys are the API keys; at least one.
	Keys []Key
	// Profile is the generation of the ERP; zero means ProfileModern.
	Profile Profile
	// Shape is the form of the bindings answer; zero means ShapeA.
	Shape Shape
	// Seed makes the generated data; the same seed and number give the same data.
	Seed uint64
	// Customers is how many customers are generated; 0: an empty ERP to be filled
	// by hand. About 92 in 100 are active, 5 paused, 3 stopped; 15 have no MAC yet, 3
	// several addresses, 4 no port. The last ones carry the defects of real data:
	// from 20 on a name full of HTML, a former, a potential and a disabled
	// customer, and one who left the billing; from 100 on two behind a cross-connect
	// and one without address; above 1000 one address twice.
	Customers int
	// Quirks are the defects to begin with.
	Quirks Quirks
	// HookURL is the agent's endpoint of hints, .../hooks/customer: it is called on
	// each change that the feed tells of too, as the PHP handler in the ERP would,
	// within 500 ms and without keeping an answer waiting. Empty: off.
	HookURL string
	// HookSecret signs the hints; obligatory with HookURL.
	HookSecret Secret
	// Log gets a line per API call at debug, and what happened at start; nil: nothing.
	Log *slog.Logger
	// Now is the clock; its time zone is the server's. nil: time.Now in UTC.
	Now func() time.Time
}

// Errors of the methods that change data.
var (
	ErrClosed   = errors.New("emulator is closed")
	ErrNotFound = errors.New("not found")
)

// maxHistory is how many MAC records are kept per customer.
const maxHistory = 100

// Emulator is the emulated ERP: an http.Handler of /api.php with methods that
// stand for the people who work in the ERP. All methods may be called
// concurrently.
type Emulator struct {
	keys    []Key
	log     *slog.Logger
	now     func() time.Time
	profile atomic.Uint32
	shape   atomic.Uint32
	quirks  atomic.Pointer[Quirks]
	started time.Time
	done    chan struct{} // closed by Close: ends delays
	actions map[string]*action
	calls   counters
	feed    feed
	hook    *hook // nil: none

	// write serialises changes: a change is planned, stored and installed under
	// it. It is taken before mu.
	write  sync.Mutex
	closed bool
	store  *store // nil: memory only
	// The highest ids so far; none is given out again.
	lastCustomer, lastMovement, lastMessage int64

	// mu guards the model. What the slices and maps point to is never modified:
	// a change replaces it, so readers may keep what they took.
	mu        sync.RWMutex
	customers []*Customer // by id
	devices   []*Device   // by id
	byIP      map[netip.Addr][]int64
	history   map[int64][]MACRecord
	vlans     []VLAN
}

// Open makes an Emulator; with a Path it opens or creates the file, which no
// other process may have open.
func Open(o Options) (*Emulator, error) {
	e := &Emulator{
		keys: slices.Clone(o.Keys), log: o.Log, now: o.Now,
		done:    make(chan struct{}),
		byIP:    map[netip.Addr][]int64{},
		history: map[int64][]MACRecord{},
	}
	if err := e.configure(o); err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	if o.Path != "" {
		s, err := openStore(o.Path)
		if err != nil {
			return nil, fmt.Errorf("emulator: %w", err)
		}
		e.store = s
	}
	if err := e.fill(o); err != nil {
		return nil, errors.Join(fmt.Errorf("emulator: %w", err), e.store.close())
	}
	e.hook.start(&e.feed)
	return e, nil
}

func (e *Emulator) configure(o Options) error {
	if len(e.keys) == 0 {
		return errors.New("no API key given")
	}
	for i, k := range e.keys {
		if err := k.validate(); err != nil {
			return fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	if err := e.SetProfile(cmp.Or(o.Profile, ProfileModern)); err != nil {
		return err
	}
	if o.Customers < 0 || o.Customers > maxCustomers {
		return fmt.Errorf("%d customers: want 0 to %d", o.Customers, maxCustomers)
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = func() time.Time { return time.Now().UTC() }
	}
	e.started = e.now()
	e.actions = actionTable()
	var err error
	if e.hook, err = newHook(o, e.now, e.log); err != nil {
		return err
	}
	if err := e.SetShape(cmp.Or(o.Shape, ShapeA)); err != nil {
		return err
	}
	return e.SetQuirks(o.Quirks)
}

// fill loads the stored data, or generates and stores it.
func (e *Emulator) fill(o Options) error {
	began := time.Now()
	data, found, err := e.store.load()
	if err != nil {
		return err
	}
	msg := "emulator data loaded, not generated"
	if !found {
		msg = "emulator data generated"
		data = generate(o.Seed, o.Customers)
		if err := e.store.fill(data); err != nil {
			return err
		}
	}
	e.install(data)
	e.log.Info(msg, "path", o.Path, "customers", len(e.customers), "devices", len(e.devices),
		"duration_seconds", time.Since(began).Seconds())
	return nil
}

// install makes data the model; before the Emulator is shared.
func (e *Emulator) install(d *dataset) {
	e.customers, e.devices, e.vlans = d.customers, d.devices, d.vlans
	if d.history != nil {
		e.history = d.history
	}
	e.byIP = make(map[netip.Addr][]int64, len(d.customers))
	for _, c := range d.customers {
		e.indexLocked(c)
		e.lastCustomer = max(e.lastCustomer, c.ID)
		for _, m := range c.Movements {
			e.lastMovement = max(e.lastMovement, m.ID)
		}
		for _, m := range c.Messages {
			e.lastMessage = max(e.lastMessage, m.ID)
		}
	}
}

// Close ends the change feeds and waiting answers and closes the file. Calls
// that come later are answered with 503.
func (e *Emulator) Close() error {
	e.write.Lock()
	defer e.write.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	close(e.done)
	e.hook.stop()
	e.feed.close()
	return e.store.close()
}

// Profile returns the emulated generation.
func (e *Emulator) Profile() Profile { return Profile(e.profile.Load()) }

// SetProfile changes the emulated generation for the calls to come.
func (e *Emulator) SetProfile(p Profile) error {
	if !p.valid() {
		return fmt.Errorf("unknown %v", p)
	}
	e.profile.Store(uint32(p))
	return nil
}

// Shape returns the form of the bindings answer.
func (e *Emulator) Shape() Shape { return Shape(e.shape.Load()) }

// SetShape changes the form of the bindings answer.
func (e *Emulator) SetShape(s Shape) error {
	if !s.valid() {
		return fmt.Errorf("shape %q: want a letter from A to F", s.String())
	}
	e.shape.Store(uint32(s))
	return nil
}

// Quirks returns the present quirks.
func (e *Emulator) Quirks() Quirks {
	q := *e.quirks.Load()
	q.MissingActions = slices.Clone(q.MissingActions)
	return q
}

// SetQuirks replaces the quirks; answers that have begun are not touched.
func (e *Emulator) SetQuirks(q Quirks) error {
	if err := q.validate(); err != nil {
		return err
	}
	q.MissingActions = slices.Clone(q.MissingActions)
	e.quirks.Store(&q)
	return nil
}

// Calls returns how often each action was asked for, keyed "category.action",
// whatever became of it. Calls of actions that no server has are under
// "unknown"; those refused for their key are under "refused" besides.
func (e *Emulator) Calls() map[string]int { return e.calls.snapshot() }

// Changes returns the feed that stands for the ERP's hooks: every change but
// those made with skip_internal_api=1, in the order in which they were made. The
// channel holds 256 of them; more are dropped for a reader that does not
// keep up. It is closed when ctx ends or the Emulator is closed.
func (e *Emulator) Changes(ctx context.Context) <-chan Change { return e.feed.subscribe(ctx) }

// Customers returns copies of all customers, by id.
func (e *Emulator) Customers() []Customer {
	all := e.customerList()
	out := make([]Customer, len(all))
	for i, c := range all {
		out[i] = *c.clone()
	}
	return out
}

// Customer returns a copy of one customer.
func (e *Emulator) Customer(id int64) (Customer, bool) {
	if c := e.customer(id); c != nil {
		return *c.clone(), true
	}
	return Customer{}, false
}

// Devices returns copies of all devices, by id.
func (e *Emulator) Devices() []Device {
	all := e.deviceList()
	out := make([]Device, len(all))
	for i, d := range all {
		out[i] = *d.clone()
	}
	return out
}

// VLANs returns the customer VLANs.
func (e *Emulator) VLANs() []VLAN {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Clone(e.vlans)
}

// Subnets returns the subnets that customers live in, for a matching
// configuration of the agent. The first address of each is left to the gateway.
func (e *Emulator) Subnets() []netip.Prefix {
	var out []netip.Prefix
	for _, v := range e.VLANs() {
		if v.Subnet.IsValid() {
			out = append(out, v.Subnet)
		}
	}
	return out
}

// MACHistory returns what MACs a customer was seen with, oldest first.
func (e *Emulator) MACHistory(id int64) []MACRecord {
	e.mu.RLock()
	defer e.mu.RUnlock()
	recs := slices.Clone(e.history[id])
	// Those of a merged customer were appended.
	slices.SortStableFunc(recs, func(a, b MACRecord) int { return a.At.Compare(b.At) })
	return recs
}

// customerList returns the customers as of now, by id. The slice is the caller's,
// what it points to must not be modified.
func (e *Emulator) customerList() []*Customer {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Clone(e.customers)
}

func (e *Emulator) deviceList() []*Device {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Clone(e.devices)
}

// customer returns a customer, not to be modified, or nil.
func (e *Emulator) customer(id int64) *Customer {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if i, ok := slices.BinarySearchFunc(e.customers, id, customerOrder); ok {
		return e.customers[i]
	}
	return nil
}

// device returns a device, not to be modified, or nil.
func (e *Emulator) device(id int64) *Device {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if i, ok := slices.BinarySearchFunc(e.devices, id, deviceOrder); ok {
		return e.devices[i]
	}
	return nil
}

// holders returns the ids of the customers that have ip.
func (e *Emulator) holders(ip netip.Addr) []int64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Clone(e.byIP[ip])
}

func customerOrder(c *Customer, id int64) int { return cmp.Compare(c.ID, id) }

func deviceOrder(d *Device, id int64) int { return cmp.Compare(d.ID, id) }

// counters count by name.
type counters struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (c *counters) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[name]++
}

func (c *counters) snapshot() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		return map[string]int{}
	}
	return maps.Clone(c.n)
}
