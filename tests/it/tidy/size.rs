//! How long a file and a function may be.

use super::{Source, check, only, scan};

/// The wall for a file, in lines that are not tests.
const FILE_LINES_MAX: usize = 600;
/// The wall for a function, in lines: one screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Files over the wall, with the lines they may have. A number here may only fall.
const FILES_OVER: &[(&str, usize)] = &[];
/// Functions over the wall, with the lines they may have. A number here may only fall.
const FUNCTIONS_OVER: &[(&str, usize)] = &[];

fn allowed(over: &[(&str, usize)], name: &str, wall: usize) -> usize {
    over.iter().find(|(known, _)| *known == name).map_or(wall, |(_, lines)| *lines)
}

/// Lines of a file, without those of its tests.
fn file_lines(source: &Source) -> usize {
    let code = &source.layers.code;
    let kept = scan::without_tests(code);
    let tests =
        code.lines().zip(kept.lines()).filter(|(before, after)| before.trim() != after.trim()).count();
    source.raw.lines().count() - tests
}

fn file_is_short(source: &Source) -> Vec<String> {
    let (lines, max) = (file_lines(source), allowed(FILES_OVER, &source.path, FILE_LINES_MAX));
    if lines > max { vec![format!("{}: {lines} lines; at most {max}", source.path)] } else { Vec::new() }
}

/// The functions of a file that are not tests: name, first line, number of lines.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let code = scan::without_tests(&source.layers.code);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '$')).collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        let body = &code[at..at + scan::item_length(&code[at..])];
        found.push((name, code[..at].lines().count(), body.lines().count()));
    }
    found
}

fn functions_fit_a_screen(source: &Source) -> Vec<String> {
    if source.within("tests/it/") {
        return Vec::new();
    }
    functions(source)
        .into_iter()
        .filter_map(|(name, line, lines)| {
            let max = allowed(FUNCTIONS_OVER, &format!("{}::{name}", source.path), FUNCTION_LINES_MAX);
            (lines > max)
                .then(|| format!("{}:{line}: function {name} has {lines} lines; at most {max}", source.path))
        })
        .collect()
}

#[test]
fn no_file_is_over_the_wall() {
    check(file_is_short);
}

#[test]
fn every_function_fits_a_screen() {
    check(functions_fit_a_screen);
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let long = "const A: u8 = 0;\n".repeat(FILE_LINES_MAX + 1);
    assert!(only(&file_is_short(&Source::new("hub/src/x.rs", &long))).contains("601 lines"));
    let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert!(file_is_short(&Source::new("hub/src/x.rs", &tests)).is_empty());
}

#[test]
fn a_long_function_is_found_by_name_and_line() {
    let body = "    call();\n".repeat(FUNCTION_LINES_MAX);
    let sample = format!(
        "//! x\n\nimpl A {{\n    fn short(a: [u8; 2]) -> u8 {{ 0 }}\n    fn long() {{\n{body}    }}\n}}\n"
    );
    let problems = functions_fit_a_screen(&Source::new("hub/src/x.rs", &sample));
    assert_eq!(only(&problems), "hub/src/x.rs:5: function long has 72 lines; at most 70");
    let in_test = sample.replace("impl A", "#[cfg(test)]\nmod tests");
    assert!(functions_fit_a_screen(&Source::new("hub/src/x.rs", &in_test)).is_empty());
}
