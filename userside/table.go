package userside

import (
	"maps"
	"slices"
)

// Kind is what a parameter's text must be.
type Kind uint8

// The kinds. On the wire everything is text (API page section 1).
const (
	KindText      Kind = iota // any text
	KindInt                   // a whole number, 0 or more
	KindID                    // a whole number above 0
	KindFlag                  // 1 or 0
	KindIP                    // dotted IPv4; the words of Enum are taken too
	KindMAC                   // hardware address, sent with colons
	KindDate                  // 2006-01-02
	KindDateTime              // 2006-01-02 15:04:05, or a date alone
	KindMoney                 // decimal number, with sign
	KindIDs                   // ids separated by commas
	KindEnum                  // one of Enum
	KindPrefixLen             // 0 to 32
)

func (k Kind) String() string {
	names := [...]string{"text", "int", "id", "flag", "ip", "mac", "date", "datetime", "money", "ids", "enum", "prefixlen"}
	if int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// AnswerKind is what an action answers when it succeeds.
type AnswerKind uint8

// The kinds of answers.
const (
	AnswerOK     AnswerKind = iota // the marker only
	AnswerID                       // Id of what was created
	AnswerIDs                      // one or several ids
	AnswerRows                     // list of rows
	AnswerMap                      // object keyed by id
	AnswerRecord                   // one object; customer get_data for several ids: AnswerMap
	AnswerScalar                   // one number or text
	AnswerBare                     // no envelope at all (cat=module): object or list
)

func (k AnswerKind) String() string {
	names := [...]string{"ok", "id", "ids", "rows", "map", "record", "scalar", "bare"}
	if int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// Param is one parameter of an Action.
type Param struct {
	Name     string // as of the newest servers
	Kind     Kind
	Required bool
	// RequiredUntil says that servers before this one want it even though newer ones do not.
	RequiredUntil Version
	OneOf         string             // name of a group of which at least one is obligatory
	Needs         string             // another parameter that must come with this one
	Differs       string             // another parameter whose value must be another one
	Default       string             // sent when the parameter is not given
	Enum          []string           // of KindEnum, or words beside a KindIP; a final N stands for digits
	EnumSince     map[string]Version // those of Enum that came later
	Since, Until  Version            // there from Since on, no more from Until on; zero: no bound
	Was           string             // former name
	WasUntil      Version            // the first version that uses Name
	Help          string             // one line, lower case, no full stop
}

// WireName returns the parameter's name on a server of level v.
func (p *Param) WireName(v Version) string {
	if p.Was != "" && !v.IsZero() && v.Before(p.WasUntil) {
		return p.Was
	}
	return p.Name
}

// RequiredOn reports whether a server of level v wants the parameter.
func (p *Param) RequiredOn(v Version) bool {
	return p.Required || !v.IsZero() && v.Before(p.RequiredUntil)
}

// Action is one row of the table that drives every call, the emulator, the
// command line and docs/userside-actions.md.
type Action struct {
	Category   string // cat=
	Name       string // action=, subcat= or request=
	Write      bool   // changes data: sent by POST, never retried unless Idempotent and so configured
	Idempotent bool   // doing it twice is the same as doing it once
	Danger     bool   // cannot be undone: a person is asked before
	Agent      bool   // the running agent calls it: it has metrics of its own
	Bulk       bool   // answers everything that there is: LaneBulk, unless the caller says otherwise

	Since, Until Version // there from Since on, no more from Until on; zero: no bound
	Params       []Param
	Answer       AnswerKind
	Confidence   string // of the contract: H, M or L as on the API page
	Section      string // of the API page
	Method       string // of Client
	Summary      string // one line, lower case, no full stop
	Notes        string // sentences; may be empty
}

// Label returns category and name with a dot between, as in metrics and errors.
func (a Action) Label() string { return a.Category + "." + a.Name }

// Param finds a parameter by its name, or by the name it had.
func (a *Action) Param(name string) (*Param, bool) {
	for i := range a.Params {
		if a.Params[i].Name == name {
			return &a.Params[i], true
		}
	}
	for i := range a.Params {
		if a.Params[i].Was != "" && a.Params[i].Was == name {
			return &a.Params[i], true
		}
	}
	return nil, false
}

// table has every action; it is only read.
var table = slices.Concat(customerLookups(), customerChanges(), neighbours())

// Actions returns every action, by category as on the API page. The caller owns
// the answer.
func Actions() []Action {
	all := slices.Clone(table)
	for i := range all {
		all[i] = all[i].clone()
	}
	return all
}

// FindAction finds a row of the table.
func FindAction(category, name string) (Action, bool) {
	a := row(category, name)
	if a == nil {
		return Action{}, false
	}
	return a.clone(), true
}

func row(category, name string) *Action {
	for i := range table {
		if table[i].Name == name && table[i].Category == category {
			return &table[i]
		}
	}
	return nil
}

func (a *Action) clone() Action {
	out := *a
	out.Params = slices.Clone(a.Params)
	for i := range out.Params {
		out.Params[i].Enum = slices.Clone(out.Params[i].Enum)
		out.Params[i].EnumSince = maps.Clone(out.Params[i].EnumSince)
	}
	return out
}
