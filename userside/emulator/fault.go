package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault is what is wrong with the answers of one action while all others are as they should be.
type Fault string

// The faults.
const (
	FaultForbidden Fault = "forbidden" // 403, as for a section that the key may not use
	FaultError     Fault = "error"     // 500 with a web page
	FaultEmpty     Fault = "empty"     // OK with nothing in it
	FaultHalf      Fault = "half"      // every second member of the answer is missing
	FaultGarbage   Fault = "garbage"   // OK with members that mean nothing
	FaultHang      Fault = "hang"      // no answer until the client gives up
	FaultGateway   Fault = "gateway"   // none until the proxy before the server gives up: 504 with a web page, after Quirks.GatewaySeconds
)

// gatewayAfter is how long nginx waits for PHP unless it is configured otherwise.
const gatewayAfter = time.Minute

// Faults lists every Fault.
func Faults() []Fault {
	return []Fault{FaultForbidden, FaultError, FaultEmpty, FaultHalf, FaultGarbage, FaultHang, FaultGateway}
}

func validateFaults(faults map[string]Fault) error {
	for name, f := range faults {
		call, condition, conditional := strings.Cut(name, "?")
		cat, action, ok := strings.Cut(call, ".")
		if !ok || cat == "" || action == "" || conditional && !strings.Contains(condition, "=") {
			return fmt.Errorf("quirks: faults %q: want category.action or category.action?parameter=value", name)
		}
		if !slices.Contains(Faults(), f) {
			return fmt.Errorf("quirks: faults %q: %q is none of %q", name, string(f), Faults())
		}
	}
	return nil
}

// faultOf returns the fault of a call, one for its parameters before one for all of its action; empty: none.
func (q *Quirks) faultOf(r *request) Fault {
	cat, action := r.category()
	found, of := Fault(""), ""
	for name, f := range q.Faults {
		call, condition, conditional := strings.Cut(name, "?")
		param, value, _ := strings.Cut(condition, "=")
		if call == cat+"."+action && (!conditional || r.param(param) == value) && len(name) > len(of) {
			found, of = f, name
		}
	}
	return found
}

// failed answers in place of the action where the fault leaves nothing of it; done is false otherwise.
func (e *Emulator) failed(w http.ResponseWriter, hr *http.Request, r *request, f Fault) (status int, done bool) {
	switch f {
	case FaultForbidden:
		status = http.StatusForbidden
		if r.profile.old() {
			status = http.StatusOK
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		enc := newEncoder(w, r.style)
		enc.refusal(r.profile, &apiError{http.StatusForbidden, "this key may not use the section"})
		_ = enc.flush() // the client's loss
	case FaultError:
		status = http.StatusInternalServerError
		webPage(w, status)
	case FaultGateway:
		status = http.StatusGatewayTimeout
		if e.wait(hr.Context(), r.quirks.gateway()) {
			webPage(w, status)
		}
	case FaultHang:
		select {
		case <-hr.Context().Done():
		case <-e.done:
		}
		status = http.StatusGatewayTimeout
		w.WriteHeader(status)
	default:
		return 0, false
	}
	return status, true
}

// webPage answers with a page of an HTTP status.
func webPage(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, htmlPage(status)) // the client's loss
}

// gateway returns how long the proxy waits for the server.
func (q *Quirks) gateway() time.Duration {
	if q.GatewaySeconds == 0 {
		return gatewayAfter
	}
	return time.Duration(q.GatewaySeconds * float64(time.Second))
}

// payload writes what FaultEmpty and FaultGarbage have in place of the action's own.
func (f Fault) payload(enc *encoder) {
	enc.key("data")
	enc.list(func() {
		if f == FaultGarbage {
			enc.object(func() { enc.strField("alpha", "beta"); enc.intField("gamma", 7) })
			enc.object(func() { enc.strField("alpha", "delta") })
		}
	})
}

// spoil returns write with every second member of what it writes missing, for FaultHalf.
func (f Fault) spoil(write func(io.Writer) error) func(io.Writer) error {
	if f != FaultHalf {
		return write
	}
	return func(w io.Writer) error {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		half, err := halved(b.Bytes())
		if err != nil {
			return err
		}
		_, err = w.Write(half)
		return err
	}
}

// halved leaves out every second member of an answer: of its data or, where it has no
// envelope, of itself. One object alone, which has an id of its own, stays.
func halved(answer []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(answer, &members); err != nil {
		return nil, err
	}
	for _, key := range []string{"data", "Data"} {
		if payload, ok := members[key]; ok {
			half, err := halfOf(payload)
			if err != nil {
				return nil, err
			}
			members[key] = half
			return json.Marshal(members)
		}
	}
	for _, key := range []string{"result", "Result"} {
		if _, enveloped := members[key]; enveloped {
			return answer, nil
		}
	}
	return halfOf(answer)
}

func halfOf(payload json.RawMessage) (json.RawMessage, error) {
	var list []json.RawMessage
	if json.Unmarshal(payload, &list) == nil {
		kept := list[:0]
		for i := 0; i < len(list); i += 2 {
			kept = append(kept, list[i])
		}
		return json.Marshal(kept)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		return nil, err
	}
	if _, single := members["id"]; single {
		return payload, nil
	}
	for i, key := range slices.Sorted(maps.Keys(members)) {
		if i%2 == 1 {
			delete(members, key)
		}
	}
	return json.Marshal(members)
}
