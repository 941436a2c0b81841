package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// Quirks are the defects and habits of real servers, each switched by itself
// (API page, sections 2.2, 8 and 9). The zero value is a well-behaved server of
// its profile. JSON names are the snake_case of the fields; Delay is
// delay_seconds.
type Quirks struct {
	// NumericStrings prints every number as text: "5" for 5. Always on in ProfileLegacy.
	NumericStrings bool `json:"numeric_strings"`
	// EmptyMapAsList prints an empty keyed object as [], as PHP does. Always on in ProfileLegacy.
	EmptyMapAsList bool `json:"empty_map_as_list"`
	// ListForMap prints keyed objects whose members carry their own id as lists:
	// group, ip_mac, ifaces, devices, get_user_list... Commutation and bindings
	// keep their keys, they are the only place of the id there.
	ListForMap bool `json:"list_for_map"`
	// OmitOptional leaves out fields that servers leave out: is_potential,
	// account_number, comment, billing..., and in bindings the fields without a value.
	OmitOptional bool `json:"omit_optional"`
	// HTMLEscaped escapes far more than the usual five characters: slashes too
	// (also in interface names: Gi0&#047;5) and every letter outside ASCII.
	HTMLEscaped bool `json:"html_escaped"`
	// GzipNoHeader compresses the answer without saying so, unless the call has gz=disable.
	GzipNoHeader bool `json:"gzip_no_header"`
	// UpperCaseColumns adds raw table columns in upper case to device rows, with
	// values that differ from the lower-case ones.
	UpperCaseColumns bool `json:"upper_case_columns"`
	// IDAsList answers look-ups with a list of ids even for a single hit.
	IDAsList bool `json:"id_as_list"`
	// CompositeRows makes the members of Shape C {ip_mac, commutation}.
	CompositeRows bool `json:"composite_rows"`
	// Truncated sends the first half of the answer only.
	Truncated bool `json:"truncated"`
	// Delay is waited before each answer.
	Delay time.Duration `json:"-"`
	// HTMLPage answers every call with a web page of this HTTP status: 200 is a
	// login page, 502 a proxy's error page. 0: off.
	HTMLPage int `json:"html_page"`
	// Forbidden answers every call like a bad key: 403.
	Forbidden bool `json:"forbidden"`
	// HookAnswer is a local hook that answers changes in place of the ERP: the
	// change is carried out and {"result":"0","msg":...} is sent, "0" meaning success.
	HookAnswer bool `json:"hook_answer"`
	// BOM puts a byte order mark before the JSON.
	BOM bool `json:"bom"`
	// PHPWarning puts the text of a PHP warning before the JSON.
	PHPWarning bool `json:"php_warning"`
	// MissingActions are unknown to the server, as "customer.get_ip_port_device_commutation".
	MissingActions []string `json:"missing_actions"`
	// EmptyBindings answers get_ip_port_device_commutation with OK and no row.
	EmptyBindings bool `json:"empty_bindings"`
	// HalfGone leaves every second customer out of all bulk answers.
	HalfGone bool `json:"half_gone"`
	// BareLookups finds addresses by their decimal number and MACs by bare digits alone.
	BareLookups bool `json:"bare_lookups"`
	// StateZeroIgnored takes state_id=0 for an empty condition, as PHP's empty() does:
	// alone it is refused.
	StateZeroIgnored bool `json:"state_zero_ignored"`
	// StateZeroAll answers state_id=0 with everybody whom no other condition leaves out.
	StateZeroAll bool `json:"state_zero_all"`
	// CardsOfAll answers customer get_data with everybody, whoever was asked for.
	CardsOfAll bool `json:"cards_of_all"`
	// CardsWithoutState leaves state_id out of get_data and get_user_list.
	CardsWithoutState bool `json:"cards_without_state"`
	// SkipOldIgnored finds former customers too, though is_skip_old=1 is to leave them out.
	SkipOldIgnored bool `json:"skip_old_ignored"`
	// LostAnswers carries out changes and closes the connection in place of an answer.
	LostAnswers bool `json:"lost_answers"`
	// ObjectForList prints lists as objects with the keys "0", "1"..., as PHP does
	// with an array that lost a member.
	ObjectForList bool `json:"object_for_list"`
	// Faults are what is wrong with single actions, by name as "device.get_data", or
	// by name and one parameter as "customer.get_customers_id?is_ex=1".
	Faults map[string]Fault `json:"faults"`
	// GatewaySeconds is after how long a call with FaultGateway is answered. 0: 60, as by nginx.
	GatewaySeconds float64 `json:"gateway_seconds"`
}

// quirksJSON is the form of Quirks in the admin API.
type quirksJSON struct {
	plainQuirks
	DelaySeconds float64 `json:"delay_seconds"`
}

type plainQuirks Quirks

// MarshalJSON implements json.Marshaler.
func (q Quirks) MarshalJSON() ([]byte, error) {
	if q.MissingActions == nil {
		q.MissingActions = []string{}
	}
	if q.Faults == nil {
		q.Faults = map[string]Fault{}
	}
	return json.Marshal(quirksJSON{plainQuirks(q), q.Delay.Seconds()})
}

// UnmarshalJSON implements json.Unmarshaler. Fields that the text does not have
// keep their value, unknown ones are an error.
func (q *Quirks) UnmarshalJSON(b []byte) error {
	v := quirksJSON{plainQuirks(*q), q.Delay.Seconds()}
	// A list or a map is replaced, not written over: the old one may be in use.
	v.MissingActions = slices.Clone(v.MissingActions)
	v.Faults = nil
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return fmt.Errorf("quirks: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("quirks: text after the object")
	}
	if !(v.DelaySeconds >= 0 && v.DelaySeconds <= 3600) || math.IsNaN(v.DelaySeconds) {
		return fmt.Errorf("quirks: delay_seconds %v: want 0 to 3600", v.DelaySeconds)
	}
	next := Quirks(v.plainQuirks)
	switch {
	case next.Faults == nil:
		next.Faults = q.Faults
	case len(next.Faults) == 0:
		next.Faults = nil
	}
	next.Delay = time.Duration(v.DelaySeconds * float64(time.Second))
	if err := next.validate(); err != nil {
		return err
	}
	*q = next
	return nil
}

func (q Quirks) validate() error {
	if q.Delay < 0 {
		return fmt.Errorf("quirks: delay %v: want 0 or more", q.Delay)
	}
	if q.HTMLPage != 0 && (q.HTMLPage < 200 || q.HTMLPage > 599) {
		return fmt.Errorf("quirks: html_page %d: want 0 or an HTTP status", q.HTMLPage)
	}
	if !(q.GatewaySeconds >= 0 && q.GatewaySeconds <= 3600) {
		return fmt.Errorf("quirks: gateway_seconds %v: want 0 to 3600", q.GatewaySeconds)
	}
	for _, name := range q.MissingActions {
		if cat, action, ok := strings.Cut(name, "."); !ok || cat == "" || action == "" {
			return fmt.Errorf("quirks: missing_actions %q: want category.action", name)
		}
	}
	return validateFaults(q.Faults)
}
