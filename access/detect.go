package access

import (
	"slices"
	"strings"
)

// Detector is a kind of value that can be found in free text and masked in
// flight. Gateways know how; policies name them.
type Detector struct {
	Name  string
	Finds string // for people
	Of    string // the group that it belongs to; "" is none
}

// Detectors are all that a mask's detect may name, besides the groups.
func Detectors() []Detector {
	return []Detector{
		{"email", "e-mail addresses", ""},
		{"card", "payment card numbers, by their check digit", ""},
		{"iban", "international bank account numbers, by their check digits", ""},
		{"us_ssn", "US social security numbers", "national_id"},
		{"ca_sin", "Canadian social insurance numbers, by their check digit", "national_id"},
		{"uk_nhs", "British NHS numbers, by their check digit", "national_id"},
		{"de_idnr", "German tax identification numbers, by their check digit", "national_id"},
		{"fr_nir", "French social security numbers, by their check digits", "national_id"},
		{"nl_bsn", "Dutch citizen service numbers, by their check digit", "national_id"},
		{"es_dni", "Spanish identity numbers, by their check letter", "national_id"},
		{"it_cf", "Italian tax codes, by their check letter", "national_id"},
		{"pl_pesel", "Polish PESEL numbers, by their check digit", "national_id"},
		{"br_cpf", "Brazilian CPF numbers, by their check digits", "national_id"},
		{"in_aadhaar", "Indian Aadhaar numbers, by their check digit", "national_id"},
		{"private_key", "private keys in PEM", "secrets"},
		{"token", "access tokens: JSON Web Tokens, and those of gitleaks' rules", "secrets"},
		{"password", "passwords in assignments, addresses and headers", "secrets"},
	}
}

// ExpandDetectors replaces groups by what belongs to them, each once, sorted.
// What it does not know, it names.
func ExpandDetectors(names []string) (known, unknown []string) {
	for _, name := range names {
		found := false
		for _, d := range Detectors() {
			if d.Name == name || d.Of == name && name != "" {
				known, found = append(known, d.Name), true
			}
		}
		if !found {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(known)
	return slices.Compact(known), unknown
}

// AddDetect adds to the masks of an approved plan what today's detect besides,
// and nothing else of them.
func AddDetect(approved, today []Mask) []Mask {
	had := Plan{Masks: approved}.Detect()
	out := slices.Clone(approved)
	for _, m := range today {
		known, unknown := ExpandDetectors(m.Detect)
		isNew := func(name string) bool { return !slices.Contains(had, name) }
		if slices.ContainsFunc(append(known, unknown...), isNew) {
			out = append(out, Mask{Name: m.Name, On: m.On, Detect: m.Detect})
		}
	}
	return out
}

// DetectorNames are all words that ExpandDetectors knows, for people.
func DetectorNames() string {
	var names []string
	for _, d := range Detectors() {
		names = append(names, d.Name)
		if d.Of != "" {
			names = append(names, d.Of)
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
