package erp

import (
	"net/netip"
	"sync"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
)

// Memory is what one ERP said, as far as later reads build on it: the state_id
// and flags of customers, which are read at different times. A Memory may be
// handed from one Fetcher to the next one for the same ERP. Safe for concurrent use.
type Memory struct {
	mu         sync.Mutex
	customers  map[int64]standing
	former     map[int64]bool
	formerRead bool
	whole      bool // a whole fetch filled it
	zero       bool // get_customers_id takes state_id=0 for a condition
	zeroCheck  zeroCheck
	reads      uint32
	moved      map[int64]string         // cabling that Moved reported, so that it reports it once
	nets       map[int64][]netip.Prefix // subnets on the cards that were read
	stale      map[int64]bool           // customers whose cabling must be followed anew
}

// standing is what is known of one customer.
type standing struct {
	stateID int32
	read    uint32          // when the card was read, by Memory.reads; 0: never
	flags   provision.Flags // of the card; Former stands in Memory.former
}

// NewMemory gives an empty Memory.
func NewMemory() *Memory {
	return &Memory{
		customers: make(map[int64]standing), former: make(map[int64]bool),
		nets: make(map[int64][]netip.Prefix), moved: make(map[int64]string), stale: make(map[int64]bool),
	}
}

// cardFlags gives the flags that get_data tells. One that the card leaves out is
// not read: the ERP often leaves out is_potential.
func cardFlags(c *userside.Customer) provision.Flags {
	flag := func(set, value bool) provision.Flag {
		switch {
		case !set:
			return provision.FlagUnread
		case value:
			return provision.FlagYes
		}
		return provision.FlagNo
	}
	return provision.Flags{
		Disabled:     flag(c.Disabled.Set, c.Disabled.Value),
		Potential:    flag(c.Potential.Set, c.Potential.Value),
		NotInBilling: flag(c.InBilling.Set, !c.InBilling.Value),
	}
}

// noStateID stands for a state_id that was not read; to a Policy every negative number does.
const noStateID = -1

// stateID returns the number of get_data, noStateID if it tells none.
func stateID(n userside.Int) int {
	if !n.Set || n.Value < 0 || n.Value > 1<<30 {
		return noStateID
	}
	return int(n.Value)
}

// card notes the card of a customer and gives what is now known.
func (m *Memory) card(c *userside.Customer, nets []netip.Prefix) (int, provision.Flags) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, known := m.customers[c.ID]
	if !known {
		s.stateID = noStateID
	}
	if n := stateID(c.State); n != noStateID {
		s.stateID = int32(n)
	}
	s.flags = cardFlags(c)
	m.reads++
	s.read = m.reads
	m.customers[c.ID] = s
	if delete(m.nets, c.ID); len(nets) > 0 {
		m.nets[c.ID] = nets
	}
	return int(s.stateID), m.flagsLocked(c.ID)
}

func (m *Memory) flags(id int64) provision.Flags {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flagsLocked(id)
}

func (m *Memory) flagsLocked(id int64) provision.Flags {
	f := m.customers[id].flags
	if m.formerRead {
		f.Former = provision.FlagNo
		if m.former[id] {
			f.Former = provision.FlagYes
		}
	}
	return f
}

// lastRead says when a customer's card was read; 0: never. Only the order means something.
func (m *Memory) lastRead(id int64) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.customers[id].read
}

// setFormer takes the list of former customers.
func (m *Memory) setFormer(ids []int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.former = make(map[int64]bool, len(ids))
	for _, id := range ids {
		m.former[id] = true
	}
	m.formerRead = true
}

// remember takes the numbers that a whole fetch found. Customers that it did
// not find are forgotten.
func (m *Memory) remember(numbers map[int64]int, zero bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.customers {
		if _, ok := numbers[id]; !ok {
			delete(m.customers, id)
			delete(m.nets, id)
		}
	}
	for id, n := range numbers {
		s := m.customers[id]
		s.stateID = int32(n)
		m.customers[id] = s
	}
	for id := range m.moved {
		if _, ok := numbers[id]; !ok {
			delete(m.moved, id)
		}
	}
	m.whole, m.zero = true, zero
}

// setStates takes the numbers of a poll of states.
func (m *Memory) setStates(numbers map[int64]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, n := range numbers {
		s := m.customers[id]
		s.stateID = int32(n)
		m.customers[id] = s
	}
}

// prior gives the number of every known customer, whether state 0 can be listed,
// and whether a whole fetch was made at all.
func (m *Memory) prior() (numbers map[int64]int, zero, whole bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.whole {
		return nil, false, false
	}
	numbers = make(map[int64]int, len(m.customers))
	for id, s := range m.customers {
		numbers[id] = int(s.stateID)
	}
	return numbers, m.zero, true
}

// newlyMoved notes the cabling of a customer that differs from the snapshot; it
// gives false if the same was noted before.
func (m *Memory) newlyMoved(id int64, cabling string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moved[id] == cabling {
		return false
	}
	m.moved[id] = cabling
	m.stale[id] = true
	return true
}

// takeStale gives the customers whose cabling must be followed anew.
func (m *Memory) takeStale() map[int64]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.stale
	m.stale = make(map[int64]bool)
	return out
}
