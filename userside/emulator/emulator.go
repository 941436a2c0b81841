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
	profile Profile
	shape   atomic.Uint32
	quirks  atomic.Pointer[Quirks]
	started time.Time
	done    chan struct{} // closed by Close: ends delays
	actions map[string]*action
	calls   counters
	feed    feed

	// write serialises changes: a change is planned, stored and installed under
	// it. It is taken before mu.
	write  sync.Mutex
	closed bool
	store  *store // nil: memory only

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
		keys: slices.Clone(o.Keys), log: o.Log, now: o.Now, profile: o.Profile,
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
	if e.profile == 0 {
		e.profile = ProfileModern
	}
	if !e.profile.valid() {
		return fmt.Errorf("unknown %v", e.profile)
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
	e.feed.close()
	return e.store.close()
}

// Profile gives the emulated generation.
func (e *Emulator) Profile() Profile { return e.profile }

// Shape gives the form of the bindings answer.
func (e *Emulator) Shape() Shape { return Shape(e.shape.Load()) }

// SetShape changes the form of the bindings answer.
func (e *Emulator) SetShape(s Shape) error {
	if !s.valid() {
		return fmt.Errorf("shape %q: want a letter from A to F", s.String())
	}
	e.shape.Store(uint32(s))
	return nil
}

// Quirks gives the present quirks.
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

// Calls gives how often each action was asked for, keyed "category.action",
// whatever became of it. Calls of actions that no server has are under
// "unknown"; those refused for their key are under "refused" besides.
func (e *Emulator) Calls() map[string]int { return e.calls.snapshot() }

// Changes gives the feed that stands for the ERP's hooks: every change but
// those made with skip_internal_api=1, in the order in which they were made. The
// channel holds 256 of them; more are dropped for a reader that does not
// keep up. It is closed when ctx ends or the Emulator is closed.
func (e *Emulator) Changes(ctx context.Context) <-chan Change { return e.feed.subscribe(ctx) }

// Customers gives copies of all customers, by id.
func (e *Emulator) Customers() []Customer {
	all := e.customerList()
	out := make([]Customer, len(all))
	for i, c := range all {
		out[i] = *c.clone()
	}
	return out
}

// Customer gives a copy of one customer.
func (e *Emulator) Customer(id int64) (Customer, bool) {
	if c := e.customer(id); c != nil {
		return *c.clone(), true
	}
	return Customer{}, false
}

// Devices gives copies of all devices, by id.
func (e *Emulator) Devices() []Device {
	all := e.deviceList()
	out := make([]Device, len(all))
	for i, d := range all {
		out[i] = *d.clone()
	}
	return out
}

// VLANs gives the customer VLANs.
func (e *Emulator) VLANs() []VLAN {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Clone(e.vlans)
}

// Subnets gives the subnets that customers live in, for a matching
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

// MACHistory gives what MACs a customer was seen with, oldest first.
func (e *Emulator) MACHistory(id int64) []MACRecord {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Clone(e.history[id])
}

// AddCustomer adds a customer and gives its id, which is the next free one when
// c.ID is 0. A zero State is StateStop, as in the ERP.
func (e *Emulator) AddCustomer(c Customer) (int64, error) {
	next := c.clone()
	err := e.change(false, func(now time.Time) ([]edit, error) {
		if err := next.validate(); err != nil {
			return nil, err
		}
		if next.ID == 0 {
			next.ID = 1001
			if n := len(e.customers); n > 0 {
				next.ID = max(next.ID, e.customers[n-1].ID+1)
			}
		}
		if e.customer(next.ID) != nil {
			return nil, fmt.Errorf("customer %d: exists already", next.ID)
		}
		if next.Created.IsZero() {
			next.Created = now
		}
		return []edit{{customer: next, change: Change{Kind: ChangeNew}}}, nil
	})
	return next.ID, err
}

// AddDevice adds a device and gives its id, which is the next free one when d.ID is 0.
func (e *Emulator) AddDevice(d Device) (int64, error) {
	next := d.clone()
	next.Type = cmp.Or(next.Type, "switch")
	err := e.change(false, func(time.Time) ([]edit, error) {
		if err := next.validate(); err != nil {
			return nil, err
		}
		if next.ID == 0 {
			next.ID = 6001
			if n := len(e.devices); n > 0 {
				next.ID = max(next.ID, e.devices[n-1].ID+1)
			}
		}
		if e.device(next.ID) != nil {
			return nil, fmt.Errorf("device %d: exists already", next.ID)
		}
		return []edit{{device: next, change: Change{Kind: ChangeNewDevice, Device: next.ID}}}, nil
	})
	return next.ID, err
}

// AddVLAN adds a customer VLAN with its subnet.
func (e *Emulator) AddVLAN(v VLAN) error {
	return e.change(true, func(time.Time) ([]edit, error) {
		if v.Subnet.IsValid() && !v.Subnet.Addr().Is4() {
			return nil, fmt.Errorf("vlan %d: subnet %v: want IPv4", v.ID, v.Subnet)
		}
		v.Subnet = v.Subnet.Masked()
		return []edit{{vlan: &v}}, nil
	})
}

// SetState changes the state of a customer, like somebody in the ERP's web
// pages or an import from the billing.
func (e *Emulator) SetState(id int64, s State) error { return e.setState(id, s, false) }

func (e *Emulator) setState(id int64, s State, quiet bool) error {
	return e.changeCustomer(id, quiet, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		if s < 0 {
			return Change{}, nil, fmt.Errorf("state %d: negative", s)
		}
		if c.State == s {
			return Change{}, nil, errNothing
		}
		c.State = s
		return Change{Kind: ChangeState}, nil, nil
	})
}

// SetFlags changes what else decides whether a customer may use the network.
func (e *Emulator) SetFlags(id int64, disabled, potential, former bool) error {
	return e.changeCustomer(id, false, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		c.Disabled, c.Potential, c.Former = disabled, potential, former
		return Change{Kind: ChangeState}, nil, nil
	})
}

// SetIPMAC writes the MAC of an address, at every customer that has the
// address, like set_mac_by_ip. ErrNotFound when nobody has it.
func (e *Emulator) SetIPMAC(ip netip.Addr, mac MAC) error { return e.setIPMAC(ip, mac, false) }

func (e *Emulator) setIPMAC(ip netip.Addr, mac MAC, quiet bool) error {
	return e.change(quiet, func(now time.Time) ([]edit, error) {
		ids := e.byIP[ip]
		if len(ids) == 0 {
			return nil, fmt.Errorf("address %v: %w", ip, ErrNotFound)
		}
		var edits []edit
		for _, id := range ids {
			c := e.customer(id).clone()
			i := slices.IndexFunc(c.Addresses, func(a Address) bool { return a.IP == ip })
			if c.Addresses[i].MAC == mac {
				continue
			}
			c.Addresses[i].MAC = mac
			edits = append(edits, edit{customer: c,
				history: []MACRecord{{At: now, IP: ip, MAC: mac}},
				change:  Change{Kind: ChangeMAC, IP: ip, MAC: mac}})
		}
		return edits, nil
	})
}

// AddIP gives a customer an address, with a MAC or without. An address that
// some customer has is refused; a data set with such a defect is built with
// AddCustomer.
func (e *Emulator) AddIP(id int64, ip netip.Addr, mac MAC) error { return e.addIP(id, ip, mac, false) }

func (e *Emulator) addIP(id int64, ip netip.Addr, mac MAC, quiet bool) error {
	return e.changeCustomer(id, quiet, func(c *Customer, now time.Time) (Change, []MACRecord, error) {
		if !ip.Is4() {
			return Change{}, nil, badRequest("address %v: the ERP knows IPv4 only", ip)
		}
		if len(e.byIP[ip]) > 0 {
			return Change{}, nil, badRequest("address %v: in use", ip)
		}
		c.Addresses = append(c.Addresses, Address{IP: ip, MAC: mac})
		var seen []MACRecord
		if !mac.IsZero() {
			seen = []MACRecord{{At: now, IP: ip, MAC: mac}}
		}
		return Change{Kind: ChangeIPAdd, IP: ip, MAC: mac}, seen, nil
	})
}

// RemoveIP takes an address from a customer.
func (e *Emulator) RemoveIP(id int64, ip netip.Addr) error {
	return e.removeIPs(id, false, func(a Address) bool { return a.IP == ip })
}

// removeIPs takes the entries that match; ErrNotFound when none does.
func (e *Emulator) removeIPs(id int64, quiet bool, match func(Address) bool) error {
	return e.changeCustomer(id, quiet, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		i := slices.IndexFunc(c.Addresses, match)
		if i < 0 {
			return Change{}, nil, fmt.Errorf("customer %d: address: %w", id, ErrNotFound)
		}
		ip := c.Addresses[i].IP
		c.Addresses = slices.DeleteFunc(c.Addresses, match)
		return Change{Kind: ChangeIPDelete, IP: ip}, nil, nil
	})
}

// Link plugs a customer into a port of a device, and nowhere else. Port 0 unplugs.
func (e *Emulator) Link(id, device int64, port uint32) error {
	return e.changeCustomer(id, false, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		if port == 0 {
			c.Links = nil
			return Change{Kind: ChangeLink}, nil, nil
		}
		if e.device(device) == nil {
			return Change{}, nil, fmt.Errorf("device %d: %w", device, ErrNotFound)
		}
		c.Links = []Link{{Device: device, Port: port}}
		return Change{Kind: ChangeLink, Device: device, Port: port}, nil, nil
	})
}

// customerList gives the customers as of now, by id. The slice is the caller's,
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

// customer gives a customer, not to be modified, or nil.
func (e *Emulator) customer(id int64) *Customer {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if i, ok := slices.BinarySearchFunc(e.customers, id, customerOrder); ok {
		return e.customers[i]
	}
	return nil
}

// device gives a device, not to be modified, or nil.
func (e *Emulator) device(id int64) *Device {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if i, ok := slices.BinarySearchFunc(e.devices, id, deviceOrder); ok {
		return e.devices[i]
	}
	return nil
}

// holders gives the ids of the customers that have ip.
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
