//! Expressions mean what mathematics means by them, one by one and in batches, with gradients.

use mbrl_env::{ColumnNames, Device, Expression, Reward, Rng, Tensor, Termination, tasks};
use proptest::{prelude::*, test_runner::RngSeed};

fn columns() -> ColumnNames {
    ColumnNames::new(["x", "y", "joint[0]", "joint[1]"], ["u", "v"])
}

fn number(text: &str) -> f64 {
    let (obs, action, next) = (&[0.5, -2.0, 3.0, 0.0], &[1.5, -0.25], &[0.75, 4.0, -1.0, 2.0]);
    Expression::reward(text, &columns()).unwrap_or_else(|error| panic!("{error}")).number(obs, action, next)
}

fn holds(text: &str) -> bool {
    let (obs, action, next) = (&[0.5, -2.0, 3.0, 0.0], &[1.5, -0.25], &[0.75, 4.0, -1.0, 2.0]);
    Expression::termination(text, &columns()).unwrap_or_else(|error| panic!("{error}")).holds(obs, action, next)
}

#[test]
fn operators_bind_as_in_mathematics() {
    for (text, value) in [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("8 / 4 / 2", 1.0),
        ("8 - 4 - 2", 2.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("2 ** 3", 8.0),
        ("-2 ^ 2", -4.0),
        ("(-2) ^ 2", 4.0),
        ("2 ^ -1", 0.5),
        ("2 * -3", -6.0),
        ("--2", 2.0),
        ("-x^2", -0.25),
        ("y^2", 4.0),
        ("y^3", -8.0),
        ("y^-1", -0.5),
        ("x^0", 1.0),
        ("2x".replace("2x", "2 * x").as_str(), 1.0),
        ("1e2 + .5 + 2.5E-1", 100.75),
        ("sin(pi / 2)", 1.0),
        ("atan2(1, 0) * 2 - pi", 0.0),
        ("max(x, y, 0.6) + min(x, y)", -1.4),
        ("clamp(y, -1, 1) + clamp(x, -1, 1) + clamp(next.y, -1, 1)", 0.5),
        ("sign(y) + sign(x) + sign(joint[1])", 0.0),
        ("if(x < 1, u, v)", 1.5),
        ("if(not x < 1 or y > 0, u, v)", -0.25),
        (
            "log(exp(2)) + sqrt(9) + abs(-3) + tan(0) + cos(0) + asin(1) + acos(1) + atan(0)",
            9.0 + std::f64::consts::FRAC_PI_2,
        ),
    ] {
        let text = &text.replace("u,", "action.u,").replace("v)", "action.v)");
        assert!((number(text) - value).abs() < 1e-12, "{text} = {}, expected {value}", number(text));
    }
    for (text, value) in [
        ("x < 1 and y < 0", true),
        ("x < 1 and y > 0 or true", true),
        ("true or x < 1 and false", true),
        ("(true or x < 1) and false", false),
        ("not x < 1 and false", false),
        ("not (x < 1 and false)", true),
        ("not not true", true),
        ("0 < x < 1", true),
        ("0 < x < 0.5", false),
        ("1 > x > 0 >= y", true),
        ("x == 0.5 and x != 1 and x <= 0.5 and x >= 0.5", true),
        ("x + 1 > y * 2", true),
    ] {
        assert_eq!(holds(text), value, "{text}");
    }
}

#[test]
fn names_are_columns() {
    for (text, value) in [
        ("x", 0.5),
        ("obs.x", 0.5),
        ("next.x", 0.75),
        ("action.u", 1.5),
        ("joint[0]", 3.0),
        ("next.joint[1]", 2.0),
        ("\"joint[1]\" + `x`", 0.5),
        ("next.\"joint[0]\"", -1.0),
        ("obs[1] + next[1] + action[1]", 1.75),
    ] {
        assert_eq!(number(text), value, "{text}");
    }
    // Any text can be the name of a column; words of the language are reached by quotes.
    let odd = ColumnNames::new(["arm.angle (rad)", "pi", "next", "größe", "camera[0,1]"], ["sin"]);
    let at = |text: &str| Expression::reward(text, &odd).unwrap().number(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0], &[0.0; 5]);
    assert_eq!(at("\"arm.angle (rad)\""), 1.0);
    assert_eq!((at("\"pi\""), at("pi")), (2.0, std::f64::consts::PI));
    assert_eq!((at("\"next\""), at("next")), (3.0, 3.0));
    assert_eq!((at("größe"), at("camera[0,1]"), at("camera[0, 1]"), at("action.sin")), (4.0, 5.0, 5.0, 6.0));
    // Those of a task.
    let cartpole = ColumnNames::of(&tasks::make("cartpole").unwrap().env);
    assert!(Expression::reward("next.angle - action.force", &cartpole).is_ok());
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_near_names() {
    let long = "x + ".repeat(1500) + "x";
    let chains = (0..30).fold("x".to_owned(), |inside, _| format!("if(0 < {inside} < 1, 1, 0)"));
    let (deep, signs) = ("(".repeat(200) + "x" + &")".repeat(200), "-".repeat(5000) + "x");
    for (text, words) in [
        ("", "letter 1: found the end, expected a number"),
        ("x +", "letter 4: found the end"),
        ("x y", "letter 3: found `y`, expected an operator or the end"),
        ("(x", "letter 3: found the end, expected `)`"),
        ("x)", "letter 2: found `)`"),
        ("z", "the observation has no column `z`"),
        ("next.xx", "letter 6: the observation has no column `xx`; did you mean `x`"),
        ("u", "did you mean `action.u`"),
        ("action.x", "the action has no column `x`; did you mean `x`"),
        ("joint", "did you mean `joint[0]`"),
        ("joint[7]", "no column `joint[7]`; did you mean `joint[0]`, `joint[1]`"),
        ("obs[4]", "the observation has no column 4; it has 4: 0 to 3"),
        ("obs[x]", "letter 5: found `x`, expected the number of a column"),
        ("next.", "expected the name of a column"),
        ("sine(x)", "letter 1: no function `sine`; did you mean `sin`"),
        ("sin", "no column `sin`; did you mean"),
        ("sin()", "`sin` of 0 numbers, expected 1"),
        ("clamp(x, 1)", "`clamp` of 2 numbers, expected 3"),
        ("min()", "expected at least one"),
        ("if(x < 1, 2)", "expected three"),
        ("if(x, 1, 2)", "letter 4: found a number, expected a comparison"),
        ("x < 1", "found a comparison, expected a number: `if(…, 1, 0)`"),
        ("(x < 1) + 1", "letter 1: found a comparison"),
        ("x = 1", "`==`"),
        ("x % 2", "no remainder"),
        ("2x", "letter 1: found `2x`, expected a number; a product needs its `*`"),
        ("1.2.3", "found `1.2.3`"),
        ("1e999", "expected a finite number"),
        ("1e39", "letter 1: found `1e39`, expected a finite number"),
        ("x + 1/0", "letter 5: the expression that begins here is inf, expected a finite number"),
        ("0 * x - log(0)", "letter 9: the expression that begins here is -inf"),
        ("if(x < 1, sqrt(-1), 2)", "letter 11: the expression that begins here is NaN"),
        ("x^(10^40)", "letter 4: the expression that begins here is 1"),
        ("x × 2", "letter 3: found `×`, which means nothing here: multiplication is `*`"),
        ("x² + 1", "letter 2"),
        ("größe + x", "letter 1"),
        ("x + größe", "letter 5: the observation has no column `größe`"),
        ("\"x", "does not end"),
        ("x && y", "found `&&`, expected `and`"),
        ("x || y", "found `||`, expected `or`"),
        ("!x", "found `!`, expected `not`"),
        ("x and y", "letter 1: found a number, expected a comparison"),
        ("and", "found `and`"),
        (&long, "expected at most 2000"),
        (&deep, "100 levels"),
        (&chains, "chains of comparisons within each other"),
        (&signs, "expected at most 2000"),
        (&"x".repeat(30_000), "30000 bytes"),
    ] {
        let told = Expression::reward(text, &columns()).expect_err(text).to_string();
        assert!(told.contains(words), "{text}: `{words}` is missing in: {told}");
    }
    let told = Expression::termination("x + 1", &columns()).unwrap_err().to_string();
    assert!(told.contains("found a number, expected a comparison, such as `next.x > 1`"), "{told}");
}

#[test]
fn the_longest_and_the_deepest_need_no_large_stack() {
    let sum = "x + ".repeat(990) + "x";
    let powers = "x ^ ".repeat(90) + "1";
    let brackets = "(x + ".repeat(90) + "x" + &")".repeat(90);
    let either = "x < 0 or ".repeat(490) + "x > 0";
    let holds = Expression::termination(&either, &columns()).unwrap();
    assert!(holds.holds(&[1.0; 4], &[0.0; 2], &[0.0; 4]));
    let device = Device::flex();
    let rows = |width| Tensor::<2>::ones([3, width], &device);
    let found = holds.terminated(rows(4), rows(2), rows(4));
    assert_eq!(found.into_data().iter::<bool>().collect::<Vec<_>>(), [true; 3]);
    for (text, value) in [(sum, 991.0), (powers, 1.0), (brackets, 91.0)] {
        let expression = Expression::reward(&text, &columns()).unwrap();
        assert_eq!(expression.number(&[1.0; 4], &[0.0; 2], &[0.0; 4]), value);
        let found = expression.reward(rows(4), rows(2), rows(4));
        assert_eq!(found.into_data().iter::<f32>().collect::<Vec<_>>(), [value as f32; 3]);
    }
}

#[test]
fn the_pendulum_in_words_is_the_pendulum() {
    let mut task = tasks::make("pendulum").unwrap();
    let text = "-(atan2(sin_angle, cos_angle)^2 + 0.1 * angular_velocity^2 + 0.001 * clamp(action.torque, -2, 2)^2)";
    let reward = Expression::reward(text, &ColumnNames::of(&task.env)).unwrap();
    mbrl_env::check::check_reward_agrees(&mut task.env, &reward, None, 3, &Device::flex(), &mut Rng::new(0)).unwrap();
    let mut task = tasks::make("cartpole").unwrap();
    let columns = ColumnNames::of(&task.env);
    let reward = Expression::reward("1", &columns).unwrap();
    let fallen =
        Expression::termination("abs(next.angle) > 12 * pi / 180 or abs(next.position) > 2.4", &columns).unwrap();
    let check = mbrl_env::check::check_reward_agrees_until_termination;
    check(&mut task.env, &reward, Some(&fallen), 20, &Device::flex(), &mut Rng::new(0)).unwrap();
}

/// Formulas, one alone and three together.
fn texts() -> (BoxedStrategy<String>, BoxedStrategy<[String; 3]>) {
    let leaf = prop_oneof![
        (-40..40_i32).prop_map(|n| format!("{}", f64::from(n) / 8.0)),
        prop::sample::select(vec!["x", "y", "joint[0]", "next.x", "next.joint[1]", "action.u", "action.v", "pi"])
            .prop_map(str::to_owned),
    ];
    let numbers = leaf.prop_recursive(5, 40, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            (two.clone(), prop::sample::select(vec!["+", "-", "*", "/"]))
                .prop_map(|((a, b), o)| format!("({a}) {o} ({b})")),
            (inner.clone(), 0..5_u32).prop_map(|(a, n)| format!("({a})^{n}")),
            (inner.clone(), prop::sample::select(vec!["sin", "cos", "abs", "atan", "-", "sign"]))
                .prop_map(|(a, f)| format!("{f}({a})")),
            inner.clone().prop_map(|a| format!("exp(clamp({a}, -3, 3))")),
            inner.clone().prop_map(|a| format!("sqrt(abs({a}))")),
            inner.clone().prop_map(|a| format!("log(1 + ({a})^2)")),
            inner.clone().prop_map(|a| format!("tan(0.3 * sin({a})) + asin(0.9 * cos({a})) + acos(0.9 * sin({a}))")),
            inner.clone().prop_map(|a| format!("(1 + abs({a}))^1.5 + 2^clamp({a}, -2, 2)")),
            (two.clone(), prop::sample::select(vec!["min", "max", "atan2"]))
                .prop_map(|((a, b), f)| format!("{f}({a}, {b})")),
            (two, inner).prop_map(|((a, b), c)| format!("if({a} < {b} or not {b} <= {c}, {a} + 1, {c})")),
        ]
    });
    let three = (numbers.clone(), numbers.clone(), numbers.clone()).prop_map(|(a, b, c)| [a, b, c]);
    (numbers.boxed(), three.boxed())
}

const ROWS: usize = 7;

/// Rows of three parts, in `f32` and the same in `f64`.
fn rows(seed: u64) -> [Vec<f32>; 3] {
    let mut rng = Rng::new(seed);
    [4, 2, 4].map(|width| (0..ROWS * width).map(|_| rng.uniform(-2.0, 2.0)).collect())
}

fn tensor(numbers: &[f32], device: &Device) -> Tensor<2> {
    Tensor::<1>::from_data(numbers, device).reshape([ROWS, numbers.len() / ROWS])
}

fn row(numbers: &[f32], row: usize) -> Vec<f64> {
    let width = numbers.len() / ROWS;
    numbers[row * width..][..width].iter().map(|x| f64::from(*x)).collect()
}

/// The largest magnitude that appears within an expression bounds what rounding can do to it.
fn is_tame(expression: &Expression, parts: &[Vec<f32>; 3]) -> bool {
    // Where a small change of the inputs changes the value much, so does rounding.
    (0..ROWS).all(|r| {
        let at = |scale: f64| {
            let part = |i: usize| row(&parts[i], r).iter().map(|x| x * scale + (scale - 1.0)).collect::<Vec<_>>();
            expression.number(&part(0), &part(1), &part(2))
        };
        let (value, moved, back) = (at(1.0), at(1.0 + 1e-6), at(1.0 - 1e-6));
        value.is_finite()
            && value.abs() < 1e4
            && (moved - value).abs() < 1e-4 * value.abs().max(1.0)
            && (back - value).abs() < 1e-4 * value.abs().max(1.0)
    })
}

/// A formula that is read, or one whose numbers alone divide by 0 or the like.
fn read(text: &str) -> Option<Expression> {
    let read = Expression::reward(text, &columns());
    read.inspect_err(|error| assert!(error.reason.contains("expected a finite number"), "{error}")).ok()
}

proptest! {
    // Always the same formulas: in one of some thousands a condition is decided by rounding, and its gradient with it.
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(0), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[allow(deprecated, reason = "the second backend on a CPU")]
    fn a_batch_is_its_rows(text in texts().0, seed in 0..1000_u64) {
        prop_assume!(text.len() < 1500);
        let Some(expression) = read(&text) else { return Ok(()) };
        let parts = rows(seed);
        prop_assume!(is_tame(&expression, &parts));
        for device in [Device::flex(), Device::ndarray()] {
            let [obs, actions, next] = [0, 1, 2].map(|i| tensor(&parts[i], &device));
            let batch: Vec<f32> = expression.reward(obs, actions, next).into_data().iter::<f32>().collect();
            prop_assert_eq!(batch.len(), ROWS);
            for (r, found) in batch.iter().enumerate() {
                let expected = expression.number(&row(&parts[0], r), &row(&parts[1], r), &row(&parts[2], r));
                prop_assert!((f64::from(*found) - expected).abs() <= 2e-3 * expected.abs().max(1.0), "{}: {} and {}", text, found, expected);
            }
        }
    }

    #[test]
    fn a_batch_of_truths_is_its_rows(three in texts().1, seed in 0..1000_u64) {
        let [a, b, c] = &three;
        let text = format!("{a} < {b} and {b} >= {c} or not ({a} > {c})");
        prop_assume!(text.len() < 1500);
        let [Some(a), Some(b), Some(c)] = three.each_ref().map(|text| read(text)) else { return Ok(()) };
        let numbers = [a, b, c];
        let expression = Expression::termination(&text, &columns()).unwrap();
        let parts = rows(seed);
        prop_assume!(numbers.iter().all(|number| is_tame(number, &parts)));
        let device = Device::flex();
        let [obs, actions, next] = [0, 1, 2].map(|i| tensor(&parts[i], &device));
        let batch: Vec<bool> = expression.terminated(obs, actions, next).into_data().iter::<bool>().collect();
        for (r, found) in batch.iter().enumerate() {
            let given = [0, 1, 2].map(|part| row(&parts[part], r));
            let values = numbers.each_ref().map(|number| number.number(&given[0], &given[1], &given[2]));
            // What is equal up to rounding may compare either way.
            let far = |i: usize, j: usize| (values[i] - values[j]).abs() > 1e-2 * values[i].abs().max(1.0);
            if far(0, 1) && far(1, 2) && far(0, 2) {
                prop_assert_eq!(*found, expression.holds(&given[0], &given[1], &given[2]), "{}", text);
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences(text in texts().0, seed in 0..1000_u64) {
        prop_assume!(text.len() < 1500);
        let Some(expression) = read(&text) else { return Ok(()) };
        let parts = rows(seed);
        let device = Device::flex().autodiff();
        let inputs = [0, 1, 2].map(|i| tensor(&parts[i], &device).require_grad());
        let [obs, actions, next] = inputs.clone();
        // A constant has no gradient of its own.
        let total = expression.reward(obs.clone(), actions, next).sum() + obs.sum() * 0.0;
        let gradients = total.backward();
        for (i, input) in inputs.iter().enumerate() {
            let width = parts[i].len() / ROWS;
            let found: Vec<f32> = match input.grad(&gradients) {
                Some(gradient) => gradient.into_data().iter::<f32>().collect(),
                None => vec![0.0; parts[i].len()],
            };
            for (entry, found) in found.iter().enumerate() {
                let at = |h: f64| {
                    let mut given = [0, 1, 2].map(|part| row(&parts[part], entry / width));
                    given[i][entry % width] += h;
                    expression.number(&given[0], &given[1], &given[2])
                };
                let slope = |h: f64| (at(h) - at(-h)) / (2.0 * h);
                let (coarse, fine) = (slope(1e-5), slope(1e-6));
                let (one_side, other_side) = ((at(1e-5) - at(0.0)) / 1e-5, (at(0.0) - at(-1e-5)) / 1e-5);
                let scale = fine.abs().max(1.0);
                // Where the slope is no number, jumps or changes within rounding there is nothing to compare.
                let is_smooth = fine.is_finite() && fine.abs() < 1e3 && at(0.0).abs() < 1e3
                    && (coarse - fine).abs() < 1e-3 * scale && (one_side - other_side).abs() < 1e-2 * scale;
                if is_smooth {
                    prop_assert!((f64::from(*found) - fine).abs() < 2e-2 * scale, "{}: {} and {}", text, found, fine);
                }
            }
        }
    }
}

#[test]
fn gradients_are_numbers_where_the_formula_has_none() {
    let device = Device::flex().autodiff();
    for text in ["sqrt(x^2 + y^2)", "abs(x)", "(x^2)^0.5", "atan2(y, x)", "max(x, y)", "sign(x)"] {
        let expression = Expression::reward(text, &columns()).unwrap();
        let obs = Tensor::<2>::zeros([1, 4], &device).require_grad();
        let rest = |width| Tensor::<2>::zeros([1, width], &device);
        let value = expression.reward(obs.clone(), rest(2), rest(4));
        assert_eq!(value.clone().into_scalar::<f32>(), 0.0, "{text}");
        let gradient: Vec<f32> =
            obs.grad(&value.sum().backward()).map_or(Vec::new(), |g| g.into_data().iter::<f32>().collect());
        assert!(gradient.iter().all(|entry| entry.is_finite()), "{text}: {gradient:?}");
    }
    // Nothing but constants is one number per row.
    let constant = Expression::reward("1 + 2", &columns()).unwrap();
    let rows = |width| Tensor::<2>::zeros([5, width], &Device::flex());
    assert_eq!(constant.reward(rows(4), rows(2), rows(4)).into_data().iter::<f32>().collect::<Vec<_>>(), [3.0; 5]);
    for (text, value) in [("true", true), ("1 > 2", false)] {
        let always = Expression::termination(text, &columns()).unwrap();
        assert_eq!(
            always.terminated(rows(4), rows(2), rows(4)).into_data().iter::<bool>().collect::<Vec<_>>(),
            [value; 5]
        );
    }
}
