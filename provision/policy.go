package provision

// Flag is what is known of one of a customer's flags. Its zero value is "not
// read", which counts for nothing.
type Flag uint8

// The values of a Flag.
const (
	FlagUnread Flag = iota
	FlagNo
	FlagYes
)

// String returns unread, no or yes.
func (f Flag) String() string { return [...]string{"unread", "no", "yes"}[min(f, FlagYes)] }

// Flags are what the ERP says of a customer beside the state (API page section 4).
type Flags struct {
	Disabled     Flag // is_disable = 1
	Potential    Flag // is_potential = 1: not yet a customer
	NotInBilling Flag // is_in_billing = 0: vanished from the billing
	Former       Flag // in the list of is_ex=1
}

// Merge takes over what other has read.
func (f *Flags) Merge(other Flags) {
	for _, p := range []struct{ to, from *Flag }{
		{&f.Disabled, &other.Disabled}, {&f.Potential, &other.Potential},
		{&f.NotInBilling, &other.NotInBilling}, {&f.Former, &other.Former},
	} {
		if *p.from != FlagUnread {
			*p.to = *p.from
		}
	}
}

// Policy says what the states and flags of the ERP mean for a customer:
// StateActive, StatePause or StateStop. The strictest of state and flags wins.
// All fields are keys of the configuration (package config).
type Policy struct {
	// The numbers of states (state_id). The ERP has 0 stop, 1 pause and 2 active; an
	// installation may have more, such as "5: pause". Of a customer in the lists of
	// two states the card decides, or the strictest where it cannot be read.
	States map[int]State `cfg:"states" read:"states" default:"{0: stop, 1: pause, 2: allow}"`

	// Numbers that are not in states: allow, pause, stop, or unknown, which is
	// allowed and listed among the problems.
	Other State `cfg:"other_states" read:"access" oneof:"unknown allow pause stop" default:"unknown"`

	// The card says "disabled" (is_disable).
	Disabled State `cfg:"disabled" read:"access" oneof:"allow pause stop" default:"stop"`

	// Not yet a customer (is_potential).
	Potential State `cfg:"potential" read:"access" oneof:"allow pause stop" default:"stop"`

	// Vanished from the billing (is_in_billing is 0). Customers of the ERP's own
	// manual billing may have 0 for good.
	NotInBilling State `cfg:"not_in_billing" read:"access" oneof:"allow pause stop" default:"allow"`

	// Former customers (is_ex).
	Former State `cfg:"former" read:"access" oneof:"allow pause stop" default:"stop"`
}

// PlainPolicy takes the three states of the ERP as they are and heeds no flag.
func PlainPolicy() Policy {
	return Policy{
		States:   map[int]State{0: StateStop, 1: StatePause, 2: StateActive},
		Disabled: StateActive, Potential: StateActive, NotInBilling: StateActive, Former: StateActive,
	}
}

// DefaultPolicy is what an installation gets that configures nothing: disabled,
// potential and former customers are stopped. Customers of the ERP's own manual
// billing may be "not in billing" for good, so that alone stops nobody.
func DefaultPolicy() Policy {
	p := PlainPolicy()
	p.Disabled, p.Potential, p.Former = StateStop, StateStop, StateStop
	return p
}

// State returns what a customer may do. A number without a meaning, as every negative one, which stands for
// what was not read, is StateUnknown unless a flag blocks; a flag that was not read counts for nothing.
func (p *Policy) State(stateID int, flags Flags) State {
	st := StateUnknown
	if stateID >= 0 {
		var ok bool
		if st, ok = p.States[stateID]; !ok {
			st = p.Other
		}
	}
	for _, f := range []struct {
		flag  Flag
		means State
	}{
		{flags.Disabled, p.Disabled}, {flags.Potential, p.Potential},
		{flags.NotInBilling, p.NotInBilling}, {flags.Former, p.Former},
	} {
		if f.flag == FlagYes && f.means.Blocks() {
			st = stricter(st, f.means)
		}
	}
	return st
}

// Knows reports whether a state_id has a meaning.
func (p *Policy) Knows(stateID int) bool {
	_, ok := p.States[stateID]
	return stateID >= 0 && (ok || p.Other != StateUnknown)
}

// Heeds reports whether a flag that only the card of a customer tells can block:
// if not, nobody needs to read them.
func (p *Policy) Heeds() bool {
	return p.Disabled.Blocks() || p.Potential.Blocks() || p.NotInBilling.Blocks()
}

// HeedsFormer reports whether being a former customer can block.
func (p *Policy) HeedsFormer() bool { return p.Former.Blocks() }

// stricter returns the one that blocks more: stop, pause, then the others.
func stricter(a, b State) State {
	switch {
	case a == StateStop || b == StateStop:
		return StateStop
	case a == StatePause || b == StatePause:
		return StatePause
	case a == StateUnknown:
		return b
	}
	return a
}
